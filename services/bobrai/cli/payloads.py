"""Payloads as the command line has them: an argument, a file, standard input, or one on each line of these.

In: texts. Out: values, with the numbers of the lines that are none. A file of any length is read line by line, twice:
to find what is wrong in it before anything is submitted, and to submit it.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from bobrai.cli.parameters import STANDARD_INPUT
from bobrai.domain import limits
from bobrai.domain.errors import ConfigurationError

_SHOWN: Final = 40  # characters of what is wrong
_COPIED: Final = 1024 * 1024  # bytes at once
_CHUNK_BYTES: Final = 2 * 1024 * 1024  # far less than one request may have, in whatever way they are written again


class BadPayload(ValueError):
    """A text that is no payload; the message says why."""


def parsed(text: bytes, *, as_text: bool) -> Any:
    """Return the payload that a text is; raises BadPayload."""
    if len(text) > limits.MAX_BODY_BYTES:
        raise BadPayload(f"has {len(text):,} bytes, and a task may have {limits.MAX_BODY_BYTES:,}")
    try:
        return text.decode() if as_text else msgspec.json.decode(text)
    except UnicodeDecodeError as error:
        raise BadPayload(f"is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        shown = text.decode(errors="replace").strip()
        raise BadPayload(f"is not JSON: {_short(shown)}: {error}") from error


def argument(text: str, *, as_text: bool) -> Any:
    """Return the payload that an argument is; raises ConfigurationError, which says how to write it."""
    try:
        return parsed(text.encode("utf-8", "surrogateescape"), as_text=as_text)
    except BadPayload as error:
        hint = "; in a shell, quote it: '{\"n\": 1}', and a string '\"hello\"', or give it as it is with --text"
        raise ConfigurationError(f"PAYLOAD {error}{'' if as_text else hint}") from error


def whole(file: str, *, as_text: bool) -> Any:
    """Return the payload that a file or standard input is; raises ConfigurationError."""
    with _opened(file) as stream:
        text = stream.read(limits.MAX_BODY_BYTES + 1)
    try:
        return parsed(text, as_text=as_text)
    except BadPayload as error:
        raise ConfigurationError(f"what {name_of(file)} holds {error}") from error


class Lines:
    """A payload on each line of a file; blank lines hold none."""

    def __init__(self, stream: IO[bytes], *, as_text: bool) -> None:
        self._stream = stream
        self._start = stream.tell()  # a shell may have read what stands before
        self._as_text = as_text

    def faults(self) -> Iterator[tuple[int, str]]:
        """Return the numbers of lines, from 1, that should hold a payload and do not, and why."""
        for number, line in self._numbered():
            try:
                self._payload(line)
            except BadPayload as error:
                yield number, str(error)

    def count(self) -> int:
        """Return how many lines there are."""
        return sum(1 for _ in self._numbered())

    def chunks(self, size: int) -> "Iterator[Chunk]":
        """Return so many lines at a time, or fewer that are long; those without a payload are left out of it.

        Where a chunk begins depends on the text alone, so that another run finds the same chunks.
        """
        chunk, length = Chunk(1, 0, [], []), 0
        for number, line in self._numbered():
            if chunk.last and (number - chunk.first == size or length + len(line) > _CHUNK_BYTES):
                yield chunk
                chunk, length = Chunk(number, 0, [], []), 0
            chunk.last = number
            length += len(line)
            with contextlib.suppress(BadPayload):
                if line.strip():
                    chunk.payloads.append(self._payload(line))
                    chunk.numbers.append(number)
        if chunk.last:
            yield chunk

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        self._stream.seek(self._start)
        return enumerate(self._stream, 1)

    def _payload(self, line: bytes) -> Any:
        line = line.rstrip(b"\r\n")
        return parsed(line, as_text=self._as_text) if line.strip() else None


@dataclass(slots=True)
class Chunk:
    """Lines from ``first`` to ``last``, the payloads in them, and the line of each."""

    first: int
    last: int
    payloads: list[Any]
    numbers: list[int]


@contextmanager
def lines(file: str, *, as_text: bool) -> Iterator[Lines]:
    """Open a file, or what standard input holds, for reading by lines; raises ConfigurationError."""
    with _opened(file) as stream:
        if stream.seekable():
            yield Lines(stream, as_text=as_text)
            return
        with tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(stream, kept, _COPIED)
            kept.seek(0)
            yield Lines(kept, as_text=as_text)


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below, apart from what else may go wrong meanwhile
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


def name_of(file: str) -> str:
    """Return what a file is called to people."""
    return "standard input" if file == STANDARD_INPUT else file


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
