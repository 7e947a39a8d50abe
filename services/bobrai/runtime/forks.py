"""What a forked child of this process gets: default signals, and nothing of our sockets and event loops.

In: descriptors that belong to the process and not to handlers. Out: in a child, each is replaced by something dead. A
child that keeps a listener would take a port over, and one that writes to a connection would garble it for all. The
numbers stay taken, so that what still refers to one of them in the child reaches nothing, and never something else.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NoReturn

from bobrai.runtime import signals

if TYPE_CHECKING:  # it is imported before signals can be answered
    import asyncio

_OPEN: Final = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112 - as below

_own: dict[int, tuple[int, int]] = {}  # descriptor ▶ which file it is, to know a number that has been used again
_sources: list[Callable[[], Iterable[int]]] = []
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by the thread that runs it
_masks: dict[int, set[int]] = {}  # of the threads that are forking
_installed = False
_is_child = False


def install() -> None:
    """Look after the children that are forked from now on."""
    global _installed
    if not _installed:
        _installed = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def open_descriptors() -> set[int]:
    """Return the numbers of all open descriptors."""
    return {int(name) for name in os.listdir(_OPEN)}  # noqa: PTH208 - pathlib takes long to import


def own(descriptors: Iterable[int]) -> None:
    """Keep these from children for as long as they are open."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            _own[descriptor] = _file(descriptor)


def own_from(source: Callable[[], Iterable[int]]) -> None:
    """Keep from children what ``source`` returns when one is forked."""
    _sources.append(source)


def own_loop(loop: asyncio.AbstractEventLoop, before: Iterable[int]) -> None:
    """Keep the event loop of this thread from children, with the descriptors that it has opened since ``before``."""
    _loops[threading.get_ident()] = loop
    own(open_descriptors().difference(before))


def end_if_child(error: BaseException | None) -> None:
    """End a forked child that has come back from the handler that forked it, by this error or by none."""
    if _is_child:
        _end_as_program(error)


def become_one_of_us() -> None:
    """Go on in a forked child as a process of the service, which looks after its own children."""
    global _is_child
    _is_child = False


def _end_as_program(error: BaseException | None) -> NoReturn:
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = (error.code or 0) & 0xFF
    elif error is not None:
        code = 1
        with contextlib.suppress(BaseException):  # what it says is the handler's own
            if isinstance(error, SystemExit):
                print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
            else:
                sys.excepthook(type(error), error, error.__traceback__)
    signals.flush_briefly()
    os._exit(code)


def _file(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _before() -> None:
    # One that comes for the child before it has default signals would be lost to it.
    _masks[threading.get_ident()] = signals.hold_back()


def _in_parent() -> None:
    signals.let_through(_masks.pop(threading.get_ident()))


def _in_child() -> None:
    global _is_child
    _is_child = True
    signals.reset_in_child()
    signals.let_through(_masks.pop(threading.get_ident()))
    for source in _sources:
        with contextlib.suppress(Exception):
            own(source())
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor, file in _own.items():
        with contextlib.suppress(OSError):
            if _file(descriptor) == file:
                _replace(descriptor, nothing)
    os.close(nothing)
    _own.clear()
    loop = _loops.get(threading.get_ident())
    if loop is not None:
        # A child that awaits something instead of ending would go on as a second one of us.
        loop.call_soon(os._exit, 1)


def _replace(descriptor: int, nothing: int) -> None:
    if "eventpoll" in _kind(descriptor):
        # What it watches is shared with the parent; an event loop that finds none at all aborts.
        with select.epoll() as empty:
            os.dup2(empty.fileno(), descriptor, inheritable=False)
    else:
        os.dup2(nothing, descriptor, inheritable=False)


def _kind(descriptor: int) -> str:
    with contextlib.suppress(OSError):  # where there is no /proc there is no eventpoll either
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - pathlib takes long to import
    return ""
