"""The small rules of the API: keys, cursors, query strings, admission, entity tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.api import cursor, idempotency, problems, schemas
from bobrai.api.admission import Admission
from bobrai.api.problems import Problem
from bobrai.domain.errors import QueueFull


def key_of(header: bytes, kind: str = "single", body: bytes = b"{}") -> tuple[str, bytes]:
    key = idempotency.key_of(header, kind, body, ttl_seconds=60, client_id="")
    assert key is not None
    return key.key, key.fingerprint


@pytest.mark.parametrize(
    ("header", "key"),
    [(b"abc", "abc"), (b'"abc"', "abc"), (b'"a b"', "a b"), (rb'"a\"b\\"', 'a"b\\'), (b"k" * 255, "k" * 255)],
)
def test_a_key_is_the_same_quoted_and_bare(header: bytes, key: str) -> None:
    assert key_of(header)[0] == key


@pytest.mark.parametrize(
    "header", [b"", b'""', b"a b", b'"abc', b'a"b', b"\xe4", b"k" * 256, b'"' + b"k" * 256 + b'"', b"a\x7f", b"a\n"]
)
def test_a_malformed_key_is_a_bad_request(header: bytes) -> None:
    with pytest.raises(Problem) as caught:
        key_of(header)
    assert caught.value.status == 400


def test_the_fingerprint_tells_bodies_and_kinds_apart() -> None:
    assert len({key_of(b"k", kind, body)[1] for kind in ("single", "batch") for body in (b"1", b"2")}) == 4


@given(st.integers(1, 2**63 - 1))
def test_a_cursor_leads_back_to_its_id(task_id: int) -> None:
    assert cursor.decode(cursor.encode(task_id)) == task_id


@given(st.from_regex(schemas.CURSOR_PATTERN, fullmatch=True))
def test_every_cursor_of_the_right_form_is_an_id(text: str) -> None:
    assert 0 <= cursor.decode(text) < 2**63


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        (b"x=1", ["/query/x"]), (b"limit=0", ["/query/limit"]), (b"limit=501", ["/query/limit"]),
        (b"limit=5.5", ["/query/limit"]), (b"limit=+5", ["/query/limit"]), (b"limit=", ["/query/limit"]),
        (b"status=odd&limit=x", ["/query/status", "/query/limit"]), (b"limit=5&limit=5", ["/query/limit"]),
        (b"cursor=short", ["/query/cursor"]), (b"type=%00", ["/query/type"]),
        (b"created_after=today", ["/query/created_after"]),
        (b"%ff=1", ["/query"]), (b"queue=%ff", ["/query"]),
    ],
)  # fmt: skip
def test_every_wrong_parameter_is_named(query: bytes, pointers: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        schemas.query(schemas.TaskListQuery, query)
    assert [fault.pointer for fault in caught.value.faults] == pointers


def test_a_plus_that_was_not_escaped_is_an_offset() -> None:
    asked = schemas.query(schemas.TaskListQuery, b"created_after=2030-01-01T02:00:00+02:00")
    assert asked.created_after.timestamp() == 1893456000


@pytest.mark.parametrize(("text", "seconds"), [(b"0", 0), (b"20", 20), (b"0.5", 0.5), (b"6e1", 60)])
def test_wait_takes_json_numbers(text: bytes, seconds: float) -> None:
    assert schemas.query(schemas.TaskQuery, b"wait=" + text).wait == seconds


@pytest.mark.parametrize("text", [b"-1", b"61", b"nan", b"inf", b"1_0", b"true", b"", b"1e999"])
def test_wait_is_0_to_60(text: bytes) -> None:
    with pytest.raises(Problem):
        schemas.query(schemas.TaskQuery, b"wait=" + text)


def test_a_pointer_escapes_what_rfc_6901_says() -> None:
    assert problems.pointer("tasks", 3, "a/b~c") == "/tasks/3/a~1b~0c"


def test_a_detail_is_bounded() -> None:
    assert len(problems.shorten("x" * 10_000)) == problems.MAX_DETAIL


class TestAdmission:
    """The room of a queue between two measurements."""

    def measured(self, backlog: int, limit: int, *, age: float | None = 0.0, now: float = 100.0) -> Admission:
        admission = Admission("media")
        admission.measured(backlog, age_seconds=age, limit=limit, now=now)
        return admission

    def test_a_full_queue_refuses_and_says_when_to_come_back(self) -> None:
        with pytest.raises(QueueFull) as caught:
            self.measured(10, 10).admit(1)
        assert caught.value.retry_after_seconds >= 1

    def test_what_is_accepted_between_measurements_counts(self) -> None:
        admission = self.measured(0, 10)
        admission.admit(10)
        with pytest.raises(QueueFull):
            admission.admit(1)

    def test_a_batch_that_does_not_fit_as_a_whole_is_refused(self) -> None:
        admission = self.measured(5, 10)
        with pytest.raises(QueueFull):
            admission.admit(6)
        admission.admit(5)

    def test_what_was_not_stored_leaves_its_room(self) -> None:
        admission = self.measured(0, 10)
        admission.admit(10)
        admission.give_back(10)
        admission.admit(10)

    def test_a_figure_taken_before_the_acceptance_does_not_forget_it(self) -> None:
        admission = self.measured(0, 10, now=100.0)
        admission.admit(8)
        admission.measured(0, age_seconds=5.0, limit=10, now=101.0)
        assert admission.backlog == 8

    def test_a_figure_taken_after_the_acceptance_includes_it(self) -> None:
        admission = self.measured(0, 10, now=100.0)
        admission.admit(8)
        admission.measured(0, age_seconds=1.0, limit=10, now=101.0)
        admission.measured(3, age_seconds=0.1, limit=10, now=102.0)
        assert admission.backlog == 3

    def test_without_any_measurement_everything_accepted_counts(self) -> None:
        admission = self.measured(0, 100_000, age=None)
        for second in range(1_000):
            admission.admit(1)
            admission.measured(0, age_seconds=None, limit=100_000, now=200.0 + second)
        assert admission.backlog == 1_000
