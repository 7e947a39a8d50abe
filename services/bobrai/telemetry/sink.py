"""Where lines go: the process's standard output, in whole lines, and never in the way of the work.

In: lines from any thread. Out: bytes on a descriptor of our own, so that whoever closes or replaces ``sys.stdout``
does not touch it. A line that cannot be written is counted in ``bobrai_log_lines_lost_total`` and forgotten.
"""

import contextlib
import os
import select
import stat
import sys
import threading
from typing import Final, TextIO

from bobrai.telemetry import metrics

PATIENCE_SECONDS: Final = 0.5  # for a reader that is behind; then lines are lost until it reads again
_AT_ONCE: Final = select.PIPE_BUF  # bytes: as much as a pipe that says it has room takes without waiting


class Sink:
    """Writes lines one after the other. Before ``open``, to whatever ``sys.stdout`` is then."""

    def __init__(self) -> None:
        # Reentrant, because a signal's or a destructor's line may come while one is being written.
        self._lock = threading.RLock()
        self._busy = False
        self._descriptor: int | None = None
        self._room: select.poll | None = None  # None: a file, which never makes anybody wait
        self._rest = b""  # of a line whose beginning is written
        self._stalled = False
        os.register_at_fork(after_in_child=self._renew)

    def open(self, stream: TextIO | None) -> None:
        """Write to the stream's file from now on; one without a descriptor (a test's) is written to as it is."""
        try:
            own = os.dup(stream.fileno()) if stream is not None else None
        except (OSError, ValueError, AttributeError):
            own = None
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor, self._rest, self._stalled, self._room = own, b"", False, None
            if own is not None and not stat.S_ISREG(os.fstat(own).st_mode):
                self._room = select.poll()
                self._room.register(own, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write one line, its newline included. Never raises, and waits for half a second at most."""
        try:
            with self._lock:
                if self._busy:
                    raise BlockingIOError  # a line that was said while this thread wrote another
                self._busy = True
                try:
                    self._put(line)
                finally:
                    self._busy = False
        except BaseException:  # noqa: BLE001 - what becomes of a line decides nothing
            lost()

    def _put(self, line: bytes) -> None:
        if self._descriptor is None:
            if sys.stdout is None:
                raise BrokenPipeError
            sys.stdout.write(line.decode("utf-8", "replace"))
            sys.stdout.flush()
            return
        if self._rest:
            self._rest = self._left_of(self._rest, self._descriptor)
            if self._rest:
                raise BlockingIOError
        left = self._left_of(line, self._descriptor)
        if left == line:
            raise BlockingIOError
        self._rest = left

    def _left_of(self, data: bytes, descriptor: int) -> bytes:
        """Write as much as there is room for and return the rest; raises OSError when not even its beginning was."""
        begun = data
        try:
            while data:
                if self._room is not None and not self._has_room(self._room):
                    break
                # The kernel keeps what is written at once together; a long line in pieces is ours to keep together.
                data = data[os.write(descriptor, data if self._room is None else data[:_AT_ONCE]) :]
        except OSError:
            if data is begun:
                raise
        return data

    def _has_room(self, room: select.poll) -> bool:
        patience = 0 if self._stalled else PATIENCE_SECONDS * 1000
        self._stalled = not room.poll(patience)
        return not self._stalled

    def _renew(self) -> None:
        """In a child of a fork, where the thread that held the lock does not exist."""
        self._lock = threading.RLock()
        self._busy = False
        self._rest = b""


def lost() -> None:
    """Count a line that nobody will read."""
    with contextlib.suppress(Exception):
        metrics.LOG_LINES_LOST.inc()
