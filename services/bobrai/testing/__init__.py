"""For people who test their handlers: one attempt without any server, or the whole service in the test's process.

In: a handler and a payload. Out: how the product judges the attempt (``attempts.py``). The pytest plugin is in
``plugin.py``, the service in ``service.py``. It is the product's own code that runs, so that ``bobrai[worker]`` is
needed, and for the service ``bobrai[dev]``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bobrai.testing.attempts import AttemptResult, Submitted, run, run_many

__all__ = ["AttemptResult", "Submitted", "run", "run_many"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: pytest imports the plugin wherever bobrAI is installed, with a worker's libraries or without.
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'bobrai.testing' has no attribute {name!r}")
    return getattr(import_module("bobrai.testing.attempts"), name)
