"""For people who test their handlers: one attempt without any server, or the whole service in the test's process.

In: a handler and a payload. Out: how the product judges the attempt (``attempts.py``). The pytest plugin is in
``plugin.py``. It runs the worker's own code, so that ``bobrai[worker]`` is needed, and for the service ``bobrai[dev]``.
"""

from bobrai.testing.attempts import AttemptResult, Submitted, run, run_many

__all__ = ["AttemptResult", "Submitted", "run", "run_many"]
