"""Signals, from a command's first instruction to its last, and the certain end of the process.

In: SIGTERM, SIGINT, and SIGHUP unless whoever started the process has it ignored, as nohup does. Out: before anything
was taken, the end of the process; later, a call of whoever listens; a second one ends the process at once, whatever it
does, but for SIGHUP: a terminal that closes sends several. Nothing heavy is imported here, because all this has to work
before and during every other import. What comes before Python's own start is over cannot be answered by anybody.
"""

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

SECONDS_TO_LEAVE: Final = 2.0  # from the end of the work to the end of the process, whatever is left behind
_THREADS_SECONDS: Final = 1.0  # of these, what threads that are not daemons may have
_FLUSH_SECONDS: Final = 0.2
_ENDING: Final = tuple(
    number
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
)
_LEVELS: Final = (signal.SIGUSR1, signal.SIGUSR2)

Listener = Callable[[signal.Signals], None]

_received: list[signal.Signals] = []
_level_asked: list[signal.Signals] = []
_listener: Listener | None = None
_on_killed: Listener | None = None
_last_acts: list[Callable[[], object]] = []
_serves = False
_process_id = 0  # of the process that all this is about; a forked child is another
_deadline: float | None = None
_code = 0


def install(*, serves: bool) -> None:
    """Answer signals from now on.

    A first one now raises SystemExit: with 0 in a command that serves, since it has taken nothing yet, and otherwise
    with 128 and the signal's number, since what was asked for is not done.
    """
    global _serves, _process_id
    _serves, _process_id = serves, os.getpid()
    hold()
    for number in _LEVELS:
        signal.signal(number, _on_level)  # their default action is to kill


def hold() -> None:
    """Take the signals that end us back from whatever library or handler has put something of its own there."""
    for number in _ENDING:
        # Without asking Python, which does not know of a library in C, faulthandler for one, that has replaced it.
        signal.signal(number, _on_signal)


def listen(listener: Listener, on_killed: Listener) -> None:
    """Call ``listener`` for the first signal from now on, or at once for one that is known already.

    It is called between any two instructions of the main thread. ``on_killed`` is called in a thread before the
    process is ended by a second one, and gets little time.
    """
    global _listener, _on_killed
    _listener, _on_killed = listener, on_killed
    hold()
    if _received:
        listener(_received[0])


def was_received() -> bool:
    """Return whether a signal has come that ends this process, so that another one would end it at once."""
    return bool(_received)


def code_of_early_end() -> int | None:
    """Return the exit code of a process that a signal ended before anybody listened, and None in all others.

    What such a process raises, and whatever code of others makes of it, comes of that end.
    """
    return _code if _received and _listener is None else None


def before_kill(act: Callable[[], object]) -> None:
    """Have this done as well, first, when a second signal ends the process; it gets little time."""
    _last_acts.append(act)


def level_asked() -> signal.Signals | None:
    """Return the last wish for another log level that came before anybody could follow it."""
    return _level_asked[-1] if _level_asked else None


def hold_back() -> set[int]:
    """Let our signals wait for this thread; returns what ``let_through`` needs."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, *_LEVELS)))


def let_through(before: set[int]) -> None:
    """Undo ``hold_back``."""
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reset_in_child() -> None:
    """Give a forked child the signals that a new process has: it must not be told for us, nor tell us."""
    for number in (*_ENDING, *_LEVELS):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _received and number == signal.SIGHUP:
        return
    _received.append(signal.Signals(number))
    if len(_received) > 1:
        _end_at_once(_received[-1])
    if _listener is not None:
        _listener(_received[0])
        return
    code = 0 if _serves else 128 + number
    end_within(SECONDS_TO_LEAVE, code)  # an `except:` around an import may swallow what is raised next
    raise SystemExit(code)


def _on_level(number: int, _frame: FrameType | None) -> None:
    _level_asked.append(signal.Signals(number))


def _end_at_once(number: signal.Signals) -> NoReturn:
    for act in _last_acts:
        _briefly(act)
    if _on_killed is not None:
        _briefly(lambda: _on_killed(number))  # standard output may be a pipe that nobody reads
    os._exit(128 + number)


def _briefly(call: Callable[[], object], seconds: float = _FLUSH_SECONDS) -> None:
    """Call something that may block, or may hold a lock that we hold, in a thread of which we do not wait for long."""
    ended = _thread.allocate_lock()
    ended.acquire()

    def run() -> None:
        try:
            with contextlib.suppress(BaseException):
                call()
        finally:
            ended.release()

    # Not `threading`, whose locks the instruction that a signal interrupted may hold.
    _thread.start_new_thread(run, ())
    ended.acquire(timeout=seconds)


# The end.


def end_within(seconds: float, code: int | None = None) -> None:
    """End this process after ``seconds`` with ``code``, by default the one that is known so far, unless it has ended.

    A later call moves the moment.
    """
    global _deadline, _code
    if code is not None:
        _code = code
    started, _deadline = _deadline is not None, time.monotonic() + seconds
    if not started:
        _thread.start_new_thread(_watch, ())


def _watch() -> None:
    while _deadline is not None and (left := _deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
    flush_briefly()
    _end_daemonic_children()
    os._exit(_code)


def leave(code: int) -> NoReturn:
    """End the process as the interpreter does, without waiting for ever for what was left behind.

    Threads that are not daemons have a second, functions registered with ``atexit`` the rest of two. A forked child
    that gets here ends as any program does.
    """
    if os.getpid() != _process_id:
        sys.exit(code)
    left = SECONDS_TO_LEAVE if _deadline is None else min(SECONDS_TO_LEAVE, _deadline - time.monotonic())
    end_within(max(left, 0.0), code)
    _flush()
    with contextlib.suppress(BaseException):
        _wait_for_threads(min(_THREADS_SECONDS, left / 2))
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter calls next
    _flush()
    # Without taking the interpreter apart: finalizers run there that may wait for threads which no longer run.
    os._exit(code)


class _Enough(BaseException):
    """The threads had their time."""


def _wait_for_threads(seconds: float) -> None:
    def enough(_number: int, _frame: FrameType | None) -> None:
        raise _Enough

    sys.unraisablehook = lambda _unraisable: None  # Python 3.13 prints there what interrupts it while it waits
    signal.signal(signal.SIGALRM, enough)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what the interpreter calls first
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def flush_briefly() -> None:
    """Write out what was printed, if somebody takes it."""
    _briefly(_flush)


def _end_daemonic_children() -> None:
    """Do what ``multiprocessing`` had no time for: its daemonic processes end with the one that started them."""
    module = sys.modules.get("multiprocessing.process")
    for child in list(getattr(module, "_children", ())):
        with contextlib.suppress(Exception):
            if child.daemon:
                child.terminate()
