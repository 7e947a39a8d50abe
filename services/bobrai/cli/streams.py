"""The process's standard streams: whatever has become of them, a command neither fails nor complains because of it.

In: descriptors that may be closed, full, or without a reader. Out: the last line on standard error, and an exit code
that tells how the command ended and not how its output did.
"""

import contextlib
import os
import sys

_READ, _OUT, _ERROR = 0, 1, 2


def stand_in() -> None:
    """Open what is closed, for nobody: the next socket would get its number, and with it what libraries print."""
    for descriptor in (_READ, _OUT, _ERROR):
        with contextlib.suppress(OSError):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(_OUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(_ERROR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def say(text: str, *, error: bool = True) -> None:
    """Print something on standard error, or standard output, after everything that was printed before it."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def forget_output() -> None:
    """Write what is left for standard output nowhere: its reader has gone, and the end of the process flushes it."""
    with contextlib.suppress(Exception):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _OUT)
        os.close(nowhere)
