"""Lines that cannot be written are counted and forgotten, whatever has become of standard output."""

import json
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from bobrai.telemetry import metrics, sink
from bobrai.telemetry.sink import Sink


def lost() -> float:
    return metrics.LOG_LINES_LOST._value.get()


class Pipe:
    """A pipe whose reader a test is."""

    def __init__(self, *, blocking: bool) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, blocking)

    def open(self) -> Sink:
        opened = Sink()
        with open(self.writer, "w", closefd=False) as stream:
            opened.open(stream)
        return opened

    def read(self) -> bytes:
        data = b""
        while select.select([self.reader], [], [], 0)[0]:
            data += os.read(self.reader, 1 << 20)
        return data


@pytest.fixture(params=[True, False], ids=["blocking", "non-blocking"])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(sink, "PATIENCE_SECONDS", 0.01)
    pipe = Pipe(blocking=request.param)
    yield pipe
    for descriptor in (pipe.reader, pipe.writer):
        if descriptor >= 0:
            os.close(descriptor)


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    opened, before = pipe.open(), lost()
    os.close(pipe.reader)
    pipe.reader = -1
    for _ in range(3):
        opened.write(b"line\n")
    assert lost() - before == 3


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    opened, before = Sink(), lost()
    with Path("/dev/full").open("w") as stream:
        opened.open(stream)
    opened.write(b"line\n")
    assert lost() - before == 1


def test_a_reader_that_does_not_read_stops_nothing_and_gets_whole_lines_again(pipe: Pipe) -> None:
    opened, before = pipe.open(), lost()
    line = json.dumps({"x": "y" * 9_000}).encode() + b"\n"
    for _ in range(100):
        opened.write(line)
    missing = lost() - before
    assert 80 < missing < 100
    read = pipe.read()
    opened.write(b"{}\n")
    read += pipe.read()
    lines = read.splitlines()
    assert len(lines) == 101 - missing
    assert lines[-1] == b"{}"
    assert all(json.loads(each) is not None for each in lines)


def test_the_lines_of_threads_do_not_mix(pipe: Pipe) -> None:
    opened, got = pipe.open(), b""
    sink.PATIENCE_SECONDS = 5  # type: ignore[misc]  # put back by the fixture
    threads = [
        threading.Thread(target=lambda n=n: [opened.write(b"%d" % n * 6_000 + b"\n") for _ in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    while got.count(b"\n") < 80:
        got += os.read(pipe.reader, 1 << 16)
    for thread in threads:
        thread.join()
    assert {len(set(line)) for line in got.splitlines()} == {1}
    assert {len(line) for line in got.splitlines()} == {6_000}


def test_whoever_closes_standard_output_does_not_close_ours(tmp_path: Path) -> None:
    opened, stream = Sink(), (tmp_path / "out").open("w")
    opened.open(stream)
    stream.close()
    with (tmp_path / "other").open("w"):  # it has the stream's number now
        opened.write(b"line\n")
    assert (tmp_path / "out").read_bytes() == b"line\n"
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_process_without_standard_output_goes_on(
    stream: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: TextIO | None = None
    if stream:
        closed = (tmp_path / "out").open("w")
        closed.close()
    monkeypatch.setattr("sys.stdout", closed)
    opened, before = Sink(), lost()
    opened.open(closed)
    opened.write(b"line\n")
    assert lost() - before == 1
