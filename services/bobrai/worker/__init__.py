"""Runs handlers: consume ▶ claim ▶ execute ▶ complete, under a lease that a thread of its own renews.

In: deliveries of hints. Out: outcomes as rows, and acks. ``main.py`` puts the parts together; a task's way is
``intake`` (hints that arrived), ``claims``, ``executor``, ``completions``. ``heartbeat`` keeps the lease.
"""
