"""bobrAI: a task-processing service that loses no accepted task.

A handler is written against the names exported here; everything else is internal. The way of a task
through the rooms is drawn in docs/architecture.md; a newcomer starts with README.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bobrai.domain.batch import Batch
    from bobrai.domain.errors import PermanentFailure, RetryLater
    from bobrai.domain.limiting import Limits, PerKey
    from bobrai.domain.retry import Retry
    from bobrai.domain.submitting import Submission
    from bobrai.domain.unique import Unique
    from bobrai.handlers.batches import Item
    from bobrai.handlers.context import Context
    from bobrai.handlers.lifespan import Depends
    from bobrai.handlers.middleware import CallNext
    from bobrai.handlers.registry import middleware, on_shutdown, on_startup, task

__version__ = "0.1.0"
__all__ = [
    "Batch", "CallNext", "Context", "Depends", "Item", "Limits", "PerKey", "PermanentFailure", "Retry", "RetryLater",
    "Submission", "Unique", "__version__", "middleware", "on_shutdown", "on_startup", "task",
]  # fmt: skip

_HOMES = {
    "Batch": "bobrai.domain.batch",
    "CallNext": "bobrai.handlers.middleware",
    "Context": "bobrai.handlers.context",
    "Depends": "bobrai.handlers.lifespan",
    "Item": "bobrai.handlers.batches",
    "Limits": "bobrai.domain.limiting",
    "PerKey": "bobrai.domain.limiting",
    "PermanentFailure": "bobrai.domain.errors",
    "Retry": "bobrai.domain.retry",
    "RetryLater": "bobrai.domain.errors",
    "Submission": "bobrai.domain.submitting",
    "Unique": "bobrai.domain.unique",
    "middleware": "bobrai.handlers.registry",
    "on_shutdown": "bobrai.handlers.registry",
    "on_startup": "bobrai.handlers.registry",
    "task": "bobrai.handlers.registry",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the API and the dispatcher import bobrai too, and never a handler.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'bobrai' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
