"""bobrAI: a task-processing service that loses no accepted task.

A handler is written against the names exported here; everything else is internal. The way of a task
through the rooms is drawn in docs/architecture.md; a newcomer starts with README.md.
"""

__version__ = "0.1.0"
