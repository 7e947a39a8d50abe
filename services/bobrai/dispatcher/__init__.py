"""The process that publishes what is due and repairs what is stuck: one loop, one file.

In: rows. Out: messages, and rows again. `main.py` runs the loops: `relay` (with `window`, `bundles`, `fleet` and
`wakeups`) publishes, `reaper` takes back from lost workers, `sweeper` finds what the broker lost, `measuring` counts,
`keeper` brings queues back and ends them, `pruner` removes. Next room: the worker.
"""
