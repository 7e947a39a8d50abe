"""What is asked, and what becomes of the answers, without a connection."""

import json
from typing import Annotated, Any

import pytest

from bobrai.client import BadAnswer, ResultHidden, Submission, models, operations
from bobrai.client.exchange import Answer, Request
from bobrai.client.operations import Flow

KEY = "idempotency-key"
TIME = "2030-01-31T12:00:00Z"
DONE = {"id": 1, "type": "t", "queue": "q", "status": "done", "run_at": TIME, "created_at": TIME, "updated_at": TIME,
        "finished_at": TIME}  # fmt: skip


def asked(flow: Flow[Any], *answers: dict[str, Any]) -> tuple[list[Request], Any]:
    """All requests of an operation, and what it returns."""
    requests = [next(flow)]
    for answer in answers:
        try:
            requests.append(flow.send(Answer(200, {}, json.dumps(answer).encode())))
        except StopIteration as end:
            return requests, end.value
    return requests, None


def test_each_submit_has_a_key_of_its_own_unless_one_is_given() -> None:
    keys = [next(operations.submit("t", 1, {}, None)).headers[KEY] for _ in range(2)]
    assert len(set(keys)) == 2
    request = next(operations.submit("t", 1, {}, "order 7"))
    assert (request.headers[KEY], request.idempotency_key) == ('"order 7"', "order 7")
    assert next(operations.submit("t", 1, {}, 'a"b\\c')).headers[KEY] == '"a\\"b\\\\c"'


@pytest.mark.parametrize("key", ["", "line\nbreak", "bücher", "x" * 256])
def test_what_is_no_key_is_said_before_anything_is_sent(key: str) -> None:
    with pytest.raises(ValueError, match="an idempotency key has 1 to"):
        next(operations.submit("t", 1, {}, key))
    with pytest.raises(ValueError, match="an idempotency key has 1 to"):
        next(operations.submit_many([Submission("t")], key))


def test_requests_of_one_submit_have_keys_made_of_one() -> None:
    many = (Submission("t", number) for number in range(2001))
    made = [{"task_ids": list(range(number))} for number in (1000, 1000, 1)]
    requests, accepted = asked(operations.submit_many(many, "k"), *made)
    assert [request.headers[KEY] for request in requests] == ['"k"', '"k.1"', '"k.2"']
    assert {request.idempotency_key for request in requests} == {"k"}
    assert [len(json.loads(request.body or b"")["tasks"]) for request in requests] == [1000, 1000, 1]
    assert len(accepted) == 2001


def test_no_more_is_taken_of_the_source_than_one_request_has_and_one() -> None:
    taken = []

    def source() -> Any:
        for number in range(5000):
            taken.append(number)
            yield Submission("t", number)

    next(operations.submit_many(source(), None))
    assert len(taken) == 1001


def test_a_result_that_may_not_be_seen_is_told_and_not_taken_for_none() -> None:
    with pytest.raises(ResultHidden, match="tasks:payload"):
        asked(operations.result(1, Any, None), DONE)
    assert asked(operations.result(1, Any, None), {**DONE, "result": None})[1] is None


@pytest.mark.parametrize(
    "expected", [dict[int, tuple[int, ...]], Annotated[dict[int, tuple[int, ...]], {"no": "hash"}]]
)
def test_a_result_becomes_what_its_handler_is_annotated_with(expected: Any) -> None:
    assert asked(operations.result(1, expected, None), {**DONE, "result": {"1": [2]}})[1] == {1: (2,)}


def test_tries_of_a_wait_end_soon_after_its_timeout() -> None:
    request = next(operations.result(1, Any, 30.0))
    assert request.held_seconds == 20.0
    assert request.within_seconds is not None
    assert 30 < request.held_seconds + request.within_seconds <= 36
    assert next(operations.result(1, Any, 0)).query == {}


def test_an_answer_of_another_service_is_told() -> None:
    with pytest.raises(BadAnswer, match="is the URL right"):
        asked(operations.get("/queues", models.QueueList), {"hello": "world"})
