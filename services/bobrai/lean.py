"""Imports a library without others that it would take along where they are installed.

In: their names. Out: imports inside of the ``with`` do not find them. structlog and httpx load rich, with which the
command line draws: a fifth of a process's start and 4 MB, for nothing that a server shows.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, cast


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Hide packages from what is imported meanwhile, but those that are loaded already."""
    modules = cast("dict[str, Any]", sys.modules)
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))  # None: Python takes it for a module that does not exist
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
