"""What handlers print in processes of their own: it becomes log lines of their attempts and never garbles others.

In: standard output and standard error of a process, through a pipe. Out: ``handler.output``, some lines in one, and
the last words of a process that crashed. A handler that prints faster than that is slowed down by its pipe.
"""

import asyncio
import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

from bobrai.runtime import forks
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_MOST_BYTES: Final = 8_192  # in one line of the log
_PERIOD_SECONDS: Final = 0.02
_MOST_READS: Final = 4  # in a period: a process that prints more is slowed down
_PIPE_BYTES: Final = 65_536  # what the kernel keeps for us
_WORDS_BYTES: Final = 16_384
_FATAL: Final = b"Fatal Python error"  # what faulthandler begins with

Fields = Callable[[], Mapping[str, object]]


class _Read(Enum):
    SOME = auto()
    NOTHING_NOW = auto()
    END = auto()


def print_to(descriptor: int) -> None:
    """Let this process print there from now on, also in its last moment; the log keeps its own way."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    for standard in (1, 2):
        os.dup2(descriptor, standard, inheritable=True)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # what stands in for it may know nothing of this
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(file=2, all_threads=True)


def flush() -> None:
    """Print what a handler has not ended with a newline."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class Output:
    """The end of the pipe that is read; ``there`` is the other one, for the process, to be closed here then."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here, self.there = os.pipe()
        os.set_blocking(self._here, False)
        forks.own([self._here])
        self._rest = b""
        self._words = b""
        self._fields: Fields = dict
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._listen()

    def begin(self, fields: Fields) -> None:
        """Say from now on that it is this attempt's."""
        self._fields = fields
        self._words = b""

    def end(self) -> None:
        """Say what it has printed; what comes now is of something that it has left behind."""
        self._read_on()
        self._fields = dict

    def last_words(self) -> str:
        """Return the traceback of a crash in native code; empty when there is none."""
        self._read_on()
        at = self._words.rfind(_FATAL)
        return self._words[at:].decode("utf-8", "replace") if at >= 0 else ""

    def close(self) -> None:
        """Read what is there, and no more."""
        if self._closed:
            return
        self._read_on()
        self._closed = True
        self._loop.remove_reader(self._here)
        if self._again is not None:
            self._again.cancel()
        os.close(self._here)

    def _listen(self) -> None:
        self._again = None
        self._loop.add_reader(self._here, self._on_readable)

    def _on_readable(self) -> None:
        # Not at once: what is printed in pieces, as a traceback, is to be one line of the log.
        self._loop.remove_reader(self._here)
        self._again = self._loop.call_later(_PERIOD_SECONDS, self._read_some)

    def _read_some(self) -> None:
        for _ in range(_MOST_READS):
            read = self._read()
            if read is not _Read.SOME:
                break
        if read is not _Read.END:
            self._listen()

    def _read_on(self) -> None:
        """Read what a pipe holds; what a process that lives prints meanwhile may wait."""
        for _ in range(_PIPE_BYTES // _MOST_BYTES + 1):
            if self._closed or self._read() is not _Read.SOME:
                break
        self._say(self._rest)
        self._rest = b""

    def _read(self) -> _Read:
        try:
            data = os.read(self._here, _MOST_BYTES)
        except BlockingIOError:
            return _Read.NOTHING_NOW
        except OSError:
            return _Read.END
        self._words = (self._words + data)[-_WORDS_BYTES:]
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _MOST_BYTES:
            whole, rest = self._rest + data, b""
        self._say(whole + newline)
        self._rest = rest
        return _Read.SOME if data else _Read.END

    def _say(self, data: bytes) -> None:
        if data.strip():
            log.info("handler.output", text=data.decode("utf-8", "replace").rstrip("\n"), **self._fields())
