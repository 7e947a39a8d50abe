"""Payloads as the command line has them, and batches that another run finds again."""

import io
from pathlib import Path
from typing import Any

import pytest

from bobrai.cli import payloads
from bobrai.cli.payloads import BadPayload, Lines
from bobrai.domain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "as_text", "payload"),
    [
        ('{"n": 1}', False, {"n": 1}), ("123456789012345678901234567890", False, 123456789012345678901234567890),
        (' "a" ', False, "a"), ("hello", True, "hello"), ("ä", True, "ä"), ("", True, ""),
    ],
)  # fmt: skip
def test_an_argument_is_json_or_a_text(text: str, as_text: bool, payload: Any) -> None:
    assert payloads.argument(text, as_text=as_text) == payload


@pytest.mark.parametrize("text", ["hello", "{'n': 1}", "", "NaN", "1 2", "[" * 5000, "1e999"])
def test_an_argument_that_is_no_json_is_told_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        payloads.argument(text, as_text=False)
    assert str(error.value).startswith("PAYLOAD is not JSON")
    assert """quote it: '{"n": 1}', and a string '"hello"', or give it as it is with --text""" in str(error.value)
    assert len(str(error.value)) < 400


def test_what_no_task_can_have_is_refused_before_it_is_sent() -> None:
    with pytest.raises(BadPayload, match="has 300,002 bytes, and a task may have 262,144"):
        payloads.parsed(b'"%s"' % (b"x" * 300_000), as_text=False)
    with pytest.raises(BadPayload, match="is not UTF-8"):
        payloads.parsed(b"\xff", as_text=True)


def test_a_file_is_one_payload(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{\n"n": 1\n}\n')
    assert payloads.whole(str(file), as_text=False) == {"n": 1}
    assert payloads.whole(str(file), as_text=True) == '{\n"n": 1\n}\n'
    with pytest.raises(ConfigurationError, match=r"no\.json cannot be read: No such file"):
        payloads.whole(str(tmp_path / "no.json"), as_text=False)


def read(text: bytes, size: int, *, as_text: bool = False) -> list[tuple[int, int, list[Any], list[int]]]:
    """The chunks of a file."""
    lines = Lines(io.BytesIO(text), as_text=as_text)
    return [(each.first, each.last, each.payloads, each.numbers) for each in lines.chunks(size)]


def test_a_chunk_is_a_matter_of_the_text_alone() -> None:
    assert read(b"1\n2\n3\n4\n5", 2) == [(1, 2, [1, 2], [1, 2]), (3, 4, [3, 4], [3, 4]), (5, 5, [5], [5])]
    # what is left out of the first ones moves none of the others
    assert read(b"bad\n2\n\n\n5\r\n", 2) == [(1, 2, [2], [2]), (3, 4, [], []), (5, 5, [5], [5])]
    assert read(b"", 2) == []
    assert read(b"a b\n\n c", 5, as_text=True) == [(1, 3, ["a b", " c"], [1, 3])]


def test_a_chunk_of_long_lines_is_no_more_than_one_request_may_have() -> None:
    line = b'"%s"\n' % (b"x" * 9_000)
    chunks = read(line * 600, 1000)
    assert [(first, last) for first, last, _, _ in chunks] == [(1, 232), (233, 464), (465, 600)]
    assert sum(len(payloads) for _, _, payloads, _ in chunks) == 600


def test_what_a_shell_has_read_of_the_input_stays_read() -> None:
    stream = io.BytesIO(b"heading\n1\n2\n")
    stream.readline()
    lines = Lines(stream, as_text=False)
    assert list(lines.faults()) == []
    assert [each.payloads for each in lines.chunks(5)] == [[1, 2]]


def test_faults_are_named_by_line_and_nothing_is_kept_of_the_rest() -> None:
    lines = Lines(io.BytesIO(b'1\n{bad\n\n"ok"\nnull\nNaN\n'), as_text=False)
    assert [number for number, _ in lines.faults()] == [2, 6]
    assert [number for number, _ in lines.faults()] == [2, 6], "a second time"
    assert lines.count() == 6
