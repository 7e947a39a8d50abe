"""Every operation of the client, written once and without I/O.

In: what the caller has said. Out: a Flow, which yields requests, gets their answers, and returns a value. ``Client``
and ``AsyncClient`` run flows on their connections.
"""

import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from bobrai.client import models
from bobrai.client.errors import BadAnswer, BadResult, ResultHidden, TaskCancelled, TaskFailed, WaitTimeout
from bobrai.client.exchange import Answer, Request
from bobrai.domain import limits, submitting
from bobrai.domain.submitting import Named, Submission

_API: Final = "/api/v1"
_LONGEST_POLL_SECONDS: Final = 20.0  # shorter than proxies keep a connection without a word
_GRACE_SECONDS: Final = 5.0  # for the answer after the time that a caller waits
_BATCH_BYTES: Final = limits.MAX_BATCH_BODY_BYTES - 64
_SUFFIX: Final = len(".1000000")  # of the keys of a batch's later requests

Value = TypeVar("Value")
Model = TypeVar("Model", bound=models.Answer)
Flow: TypeAlias = Generator[Request, Answer, Value]


class Accepted(NamedTuple):
    """One task that is submitted; ``result`` is the type of its result."""

    task_id: int
    is_duplicate: bool
    warnings: tuple[str, ...]
    result: Any


def submit(task: Named, payload: Any, options: Mapping[str, Any], key: str | None) -> Flow[Accepted]:
    """Submit one task, once however often the request is sent."""
    name = new_key() if key is None else key
    request = Request(
        "POST", f"{_API}/tasks", body=_body(task, payload, options), headers=_keyed(name), idempotency_key=name
    )
    made = _decoded((yield request), models.Created)
    return Accepted(made.task_id, made.duplicate, tuple(made.warnings), submitting.result_of(task))


def submit_many(submissions: Iterable[Submission], key: str | None) -> Flow[list[Accepted]]:
    """Submit tasks in their order, in requests of as many as one may have; each is stored whole, and once."""
    accepted: list[Accepted] = []
    base = new_key() if key is None else key
    _check_key(base, limits.MAX_IDEMPOTENCY_KEY - _SUFFIX)
    for number, (bodies, results) in enumerate(_batches(submissions)):
        body = b'{"tasks":[' + b",".join(bodies) + b"]}"
        # The first one has the key as it was given, so that a small batch has it.
        name = base if number == 0 else f"{base}.{number}"
        request = Request("POST", f"{_API}/tasks/batch", body=body, headers=_keyed(name), idempotency_key=base)
        made = _decoded((yield request), models.BatchCreated)
        known, said = set(made.duplicates), tuple(made.warnings)
        accepted += (
            Accepted(task_id, place in known, said, result)
            for place, (task_id, result) in enumerate(zip(made.task_ids, results, strict=True))
        )
    return accepted


def of_one_type(task: Named, payloads: Iterable[Any], options: Mapping[str, Any]) -> Iterator[Submission]:
    """Return a submission for each payload."""
    return (Submission(task, payload, **options) for payload in payloads)


def read(task_id: int) -> Flow[models.Task]:
    """Read a task."""
    return _decoded((yield _read(task_id, 0.0, None)), models.Task)


def _read(task_id: int, wait_seconds: float, within_seconds: float | None) -> Request:
    """Return the request for a task as it is, or as it ends within the wait."""
    query = {"wait": f"{wait_seconds:.3f}"} if wait_seconds > 0 else {}
    path = f"{_API}/tasks/{task_id}"
    return Request("GET", path, query, held_seconds=wait_seconds, within_seconds=within_seconds)


def ended(task_id: int, timeout: float | None) -> Flow[models.Task]:
    """Wait for a task's end and return it, however it has ended; raises WaitTimeout."""
    return _decoded((yield from _end(task_id, timeout)), models.Task)


def result(task_id: int, expected: Any, timeout: float | None) -> Flow[Any]:
    """Wait for a task's end and return its result; raises an error where there is none."""
    answer = yield from _end(task_id, timeout)
    return _result(_decoded(answer, models.Task), _decoded(answer, models.Shown), expected)


def _end(task_id: int, timeout: float | None) -> Flow[Answer]:
    """Return the answer that shows a task's end; raises WaitTimeout."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _LONGEST_POLL_SECONDS if until is None else max(0.0, until - time.monotonic())
        wait = min(left, _LONGEST_POLL_SECONDS)
        answer = yield _read(task_id, wait, None if until is None else left - wait + _GRACE_SECONDS)
        task = _decoded(answer, models.Task)
        if task.is_final:
            return answer
        if until is not None and timeout is not None and time.monotonic() >= until:
            raise WaitTimeout(task, timeout)


def _result(task: models.Task, shown: models.Shown, expected: Any) -> Any:
    if task.status == "failed":
        raise TaskFailed(task)
    if task.status == "cancelled":
        raise TaskCancelled(task)
    if isinstance(shown.result, msgspec.UnsetType):
        raise ResultHidden(f"task {task.id} ({task.type}) is done; to see results a credential needs tasks:payload")
    if expected in (Any, object):
        return task.result
    try:
        return _adapter(expected).validate_json(bytes(shown.result))
    except ValidationError as error:
        raise BadResult(
            f"the result of task {task.id} ({task.type}) is not what its handler returns: {error}"
        ) from error


def _adapter(expected: Any) -> TypeAdapter[Any]:
    try:
        return _kept_adapter(expected)
    except TypeError:  # Annotated[…] with something that has no hash
        return TypeAdapter(expected)


@lru_cache(maxsize=256)
def _kept_adapter(expected: Any) -> TypeAdapter[Any]:
    return TypeAdapter(expected)


def cancel(task_id: int) -> Flow[models.Task]:
    """Cancel a task, or ask its worker to stop."""
    return _decoded((yield Request("POST", f"{_API}/tasks/{task_id}/cancel")), models.Task)


def replay(task_id: int) -> Flow[models.Task]:
    """Give a final task a fresh set of attempts."""
    # A second one after an answer that was lost would find it final, and run it once more.
    return _decoded((yield Request("POST", f"{_API}/tasks/{task_id}/replay", is_repeatable=False)), models.Task)


def page(path: str, filters: Mapping[str, Any], cursor: str | None, model: type[Model]) -> Flow[Model]:
    """Read a page of tasks or changes."""
    query = {name: _said(value) for name, value in filters.items() if value is not None}
    if cursor is not None:
        query["cursor"] = cursor
    return _decoded((yield Request("GET", _API + path, query)), model)


def _said(value: Any) -> str:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"a moment needs an offset, as datetime.now(UTC) has, which {value!r} lacks")
        return value.isoformat()
    return str(value)


def get(path: str, model: type[Model]) -> Flow[Model]:
    """Read something."""
    return _decoded((yield Request("GET", _API + path)), model)


def change(
    method: str, path: str, members: Mapping[str, Any], model: type[Model], *, is_repeatable: bool = True
) -> Flow[Model]:
    """Change or make something; ``members`` that are not given are left out."""
    body = msgspec.json.encode(_plain(members))
    return _decoded((yield Request(method, _API + path, body=body, is_repeatable=is_repeatable)), model)


def remove(path: str, query: Mapping[str, str]) -> Flow[None]:
    """Remove something; not sent again, as a second one would find it gone."""
    yield Request("DELETE", _API + path, query, is_repeatable=False)


def named(path: str, name: str) -> str:
    """Return the path of one queue, type or key."""
    return f"{path}/{quote(name, safe='')}"


def new_key() -> str:
    """Return an idempotency key like no other."""
    return uuid.uuid4().hex


def _keyed(key: str) -> dict[str, str]:
    _check_key(key, limits.MAX_IDEMPOTENCY_KEY)
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return {"idempotency-key": f'"{escaped}"'}  # a string of RFC 8941, which may have spaces


def _check_key(key: str, most: int) -> None:
    if not (key and key.isascii() and key.isprintable() and len(key) <= most):
        raise ValueError(f"an idempotency key has 1 to {most} printable ASCII characters, unlike {key!r}")


def _body(task: Named, payload: Any, options: Mapping[str, Any]) -> bytes:
    try:
        text = msgspec.Raw(to_json(payload))
    except PydanticSerializationError as error:
        raise ValueError(f"the payload cannot be written as JSON: {error}") from None
    return msgspec.json.encode({"type": submitting.type_of(task), "payload": text, **submitting.members(options)})


def _batches(submissions: Iterable[Submission]) -> Iterator[tuple[list[bytes], list[Any]]]:
    """Return bodies, and types of results, for one request after the other."""
    bodies: list[bytes] = []
    results: list[Any] = []
    size = 0
    for each in submissions:
        body = _body(each.task, each.payload, each.options)
        if bodies and (len(bodies) == limits.MAX_BATCH_TASKS or size + len(body) + 1 > _BATCH_BYTES):
            yield bodies, results
            bodies, results, size = [], [], 0
        bodies.append(body)
        results.append(submitting.result_of(each.task))
        size += len(body) + 1
    if bodies:
        yield bodies, results


def _plain(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not msgspec.UNSET}


def _decoded(answer: Answer, model: type[Model]) -> Model:
    try:
        return msgspec.json.decode(answer.content, type=model)
    except msgspec.DecodeError as error:
        raise BadAnswer(f"an answer that is not the API's: {error}; is the URL right?", answer.status) from error
