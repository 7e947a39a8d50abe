"""The first process of a container: it hands signals on, reaps whom nobody else reaps, and ends as its child ends.

In: being process 1. Out: a child, which is the command itself, so that everything it starts has an ordinary parent.
Orphans come to process 1, which has no other children: reaping them takes nobody's exit code away. The fork comes
before anything is imported, so that this process costs little memory.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

_NEVER_HELD: Final = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT}
    | {signal.SIGTRAP, signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU}
)


def split_off(prepare: Callable[[], None]) -> None:
    """Return in the process that is to do the work: in this one, or, when this is process 1, in a child of it.

    ``prepare`` is called there, before a signal can reach it.
    """
    if os.getpid() == 1:
        fork_below(prepare)
    else:
        prepare()


def fork_below(prepare: Callable[[], None]) -> None:
    """Return in a child; this process reaps and hands on signals until the child has ended, and never returns."""
    held = signal.valid_signals() - _NEVER_HELD
    # Held back, a signal waits; process 1 would lose one for which it has no function.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        child = os.fork()
    except OSError:
        child = 0  # no process more is allowed: better alone than not at all
    if child == 0:
        prepare()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        told = signal.sigwaitinfo(held)
        if told.si_signo == signal.SIGCHLD:
            _reap(child)
        elif told.si_code <= 0:  # of a process; the terminal's own go to the child as well
            os.kill(child, told.si_signo)


def _reap(child: int) -> None:
    """Reap everybody who has ended; after the child this process ends, as a shell reports it."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == 0:
            return
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
