"""Handlers of batches: what their declaration may look like, what it announces, and what an Item says."""

import json
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from msgspec import structs
from pydantic import BaseModel

from bobrai import Batch, Context, Depends, Item, PermanentFailure, RetryLater
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers.batches import RetryItem
from bobrai.handlers.handler import Handler
from tests.integration.worker.executing import CLAIM


class Doc(BaseModel):
    text: str


class Indexed(BaseModel):
    number: int


def declared(function: Callable[..., Any], **more: Any) -> Handler:
    handler = Handler(function, "index", **{"batch": Batch(10), **more})
    handler.resolve()
    return handler


def schemas(function: Callable[..., Any]) -> tuple[Any, Any]:
    kind = declared(function).task_type
    return json.loads(kind.payload_schema), json.loads(kind.result_schema)


async def plain(items: list[Item[Doc]]) -> list[Indexed]:
    return []


async def loose(items: Sequence[Item[Doc]]) -> Sequence[Indexed]:
    return []


def tupled(items: list[Item[Doc]]) -> tuple[Indexed, ...]:
    return ()


@pytest.mark.parametrize("function", [plain, loose, tupled])
def test_announced_schemas_are_those_of_one_task(function: Callable[..., Any]) -> None:
    payload, result = schemas(function)
    assert (payload["title"], result["title"]) == ("Doc", "Indexed")


def test_a_result_may_be_missing_or_nothing_or_anything() -> None:
    async def perhaps(items: list[Item[Doc]]) -> list[Indexed] | None: ...

    async def nothing(items: list[Item[Doc]]) -> None: ...

    async def anything(items): ...  # type: ignore[no-untyped-def]

    async def bare(items: list, *, pool: Annotated[str, Depends(plain)]) -> list: ...  # type: ignore[type-arg]

    assert {"type": "null"} in schemas(perhaps)[1]["anyOf"]
    assert schemas(nothing)[1]["type"] == "null"
    assert schemas(anything) == ({}, {})
    assert schemas(bare) == ({}, {})


def test_only_what_has_no_batch_is_called_directly() -> None:
    assert not declared(plain).is_direct
    assert Handler(plain, "index").is_direct
    assert not Handler(tupled, "index").is_direct


def _wrong() -> dict[str, Callable[..., Any]]:
    async def one(payload: Doc) -> None: ...

    async def no_items(payload: list[Doc]) -> None: ...

    async def with_context(ctx: Context, items: list[Item[Doc]]) -> None: ...

    async def context_alone(ctx: Context) -> None: ...

    async def nothing() -> None: ...

    async def one_result(items: list[Item[Doc]]) -> Indexed: ...  # type: ignore[empty-body]

    async def some_results(items: list[Item[Doc]]) -> tuple[int, str]: ...  # type: ignore[empty-body]

    async def either(items: list[Item[Doc]]) -> typing.Union[list[int], list[str]]: ...  # type: ignore[empty-body]  # noqa: UP007

    return {function.__name__: function for key, function in locals().items() if callable(function)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one", "takes Doc; with a batch write `items: list[Item[…]]`"),
        ("no_items", "with a batch write `items: list[Item[…]]`"),
        ("with_context", "takes (ctx, items); with a batch write `items: list[Item[…]]` alone"),
        ("context_alone", "takes (ctx); with a batch write"),
        ("nothing", "takes (); with a batch write"),
        ("one_result", "returns Indexed; with a batch write `-> list[…]`, one result for each item"),
        ("some_results", "with a batch write `-> list[…]`"),
        ("either", "with a batch write `-> list[…]`"),
    ],
)
def test_wrong_signature_says_what_to_write(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        declared(_wrong()[name])
    assert message in str(raised.value)


def test_a_batch_in_a_process_and_what_is_no_batch_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a process runs one task at a time"):
        declared(plain, runs_in="process")
    with pytest.raises(ConfigurationError, match=r"must be a bobrai\.Batch, such as Batch\(100\), not 100"):
        declared(plain, batch=100)


class _Services:
    def __init__(self) -> None:
        self.reports: list[str] = []

    def report_progress(self, task_id: int, attempt: int, text: str) -> None:
        self.reports.append(text)

    def open_transaction(self, task_id: int, attempt: int) -> Any:
        raise AssertionError("nobody asks for it")


def item(services: _Services | None = None) -> Item[str]:
    claim = structs.replace(CLAIM, task_id=7, attempt=2, max_attempts=5)
    return Item(Context(claim, services or _Services()), "text")


def test_an_item_knows_its_task() -> None:
    services = _Services()
    one = item(services)
    assert (one.payload, one.task_id, one.attempt, one.max_attempts, one.cancelled) == ("text", 7, 2, 5, False)
    assert 0 < one.remaining_seconds <= 30
    assert one.deadline == one.ctx.deadline
    assert one.logger is one.ctx.logger
    one.progress(3)
    assert services.reports == ["3"]
    with pytest.raises(RuntimeError, match="in a batch"):
        one.transaction()


def test_an_item_that_leaves_or_whose_attempt_is_stopped_is_cancelled() -> None:
    left, stopped = item(), item()
    left.leave()
    stopped.ctx.stop()
    assert left.cancelled
    assert stopped.cancelled


def test_what_is_said_first_of_an_item_counts() -> None:
    failed, again, later = item(), item(), item()
    assert failed.marked is None
    failed.fail("no such document")
    failed.retry()
    again.retry(reason="busy")
    again.fail("too late")
    later.retry(5, "too early")
    assert isinstance(failed.marked, PermanentFailure)
    assert (type(again.marked), str(again.marked)) == (RetryItem, "busy")
    assert isinstance(later.marked, RetryLater)
    assert (later.marked.delay, str(later.marked)) == (5, "too early")
    with pytest.raises(ValueError, match="delay must be a number of seconds"):
        later.retry(-1)
