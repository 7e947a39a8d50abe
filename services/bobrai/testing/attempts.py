"""Runs attempts of a handler in the test's own event loop, by the worker's executor.

In: a declared handler, payloads, and which attempt it is. Out: an AttemptResult, as the product would write it into the
task's row, with what the handler has reported and submitted. No server is asked, and nothing is stored.
"""

import asyncio
import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from bobrai.domain import submitting
from bobrai.domain.children import Child
from bobrai.domain.errors import ConfigurationError
from bobrai.domain.submitting import Named
from bobrai.domain.task import AttemptError, Claim, Outcome
from bobrai.handlers import registry
from bobrai.handlers.codec import payload_text
from bobrai.handlers.handler import Handler
from bobrai.handlers.lifespan import Hooks, parameters_of
from bobrai.handlers.registry import Registry
from bobrai.testing.transaction import GivenTransaction
from bobrai.worker.attempt import Claimed
from bobrai.worker.executor import Executor
from bobrai.worker.lifespan import STOP_SECONDS, Lifespan
from bobrai.worker.speeds import Speeds

_STARTUP_SECONDS = 60.0
_WORKER = 1  # the id of the only worker there is

Given = Mapping[Callable[..., Any], Any]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A follow-up task: ``payload`` as its handler will get it from JSON, ``options`` as the HTTP API names them."""

    type: str
    payload: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended.

    ``status`` is ``done``, ``failed`` (final), ``retry`` (the policy allows another attempt), ``snooze`` (RetryLater:
    it costs no attempt) or ``cancelled``. ``result`` is what a client would read. ``delay_seconds`` is the wait before
    the next attempt, without the policy's jitter. ``progress`` has every value reported, ``children`` every task
    submitted: none unless it is done.
    """

    status: str
    result: Any = None
    error: AttemptError | None = None
    delay_seconds: float = 0.0
    progress: Sequence[Any] = ()
    children: Sequence[Submitted] = ()

    @property
    def reason(self) -> str:
        """Why it has not succeeded, in the word of the task's ``errors``; empty when it has."""
        return "" if self.error is None else self.error.reason


async def run(
    task: Named,
    payload: Any = None,
    *,
    attempt: int = 1,
    max_attempts: int | None = None,
    timeout: float | None = None,
    cancel_after: float | None = None,
    given: Given | None = None,
    connection: Any = None,
    **claim: Any,
) -> AttemptResult:
    """Run one attempt of a handler, and return how it ended.

    ``payload`` becomes JSON and is decoded as in production. ``timeout`` and ``cancel_after`` are in seconds. ``given``
    has values for ``Depends(function)`` by their functions; what it lacks is started, and ended afterwards.
    ``connection`` is what ``ctx.transaction()`` gives. ``claim`` may say more of the task: task_id, queue, request_id,
    losses, snoozes. Raises ConfigurationError for what is no declared handler, ValueError for what is no JSON.
    """
    said = {"attempt": attempt, "max_attempts": max_attempts, "timeout": timeout, **claim}
    [result] = await run_many(task, [payload], cancel_after=cancel_after, given=given, connection=connection, **said)
    return result


async def run_many(
    task: Named,
    payloads: Iterable[Any],
    *,
    cancel_after: float | None = None,
    given: Given | None = None,
    connection: Any = None,
    **claim: Any,
) -> list[AttemptResult]:
    """Run an attempt for each payload at once, in one call where the handler takes batches; otherwise as ``run``."""
    handler = _handler(task)
    texts = [payload_text(payload) for payload in payloads]
    async with _lifespan(handler, given or {}) as (alone, prepared):
        bench = _Bench(prepared, len(texts), connection)
        ids = [bench.start(_claim(alone, text, number, **claim)) for number, text in enumerate(texts, 1)]
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, bench.executor.cancel, ids)
        try:
            return [await bench.result(task_id) for task_id in ids]
        finally:
            bench.executor.close()


def _handler(task: Named) -> Handler:
    try:
        type_ = submitting.type_of(task)
    except TypeError as error:
        raise ConfigurationError(str(error)) from None
    handler = registry.default.get(type_)
    if handler is None:
        raise ConfigurationError(f"no handler of type {type_!r} is declared: import its module first")
    return handler


@asynccontextmanager
async def _lifespan(handler: Handler, given: Given) -> Any:
    """Give the handler, alone in a registry, with all that it depends on."""
    alone = copy.copy(handler)  # what it is given now is of this run only
    own = Registry()
    own.add(alone)
    own.middlewares = registry.default.middlewares
    own.hooks = Hooks()
    own.hooks.startups = list(dict.fromkeys(_missing(alone.dependencies.values(), given)))
    if own.hooks.startups:
        own.hooks.shutdowns = registry.default.hooks.shutdowns
    lifespan = Lifespan(own, given)
    try:
        await lifespan.start(_STARTUP_SECONDS)
        yield alone, own
    finally:
        await lifespan.stop(STOP_SECONDS)


def _missing(wanted: Iterable[Callable[..., Any]], given: Given) -> Iterable[Callable[..., Any]]:
    """Return the start-up functions whose values are not given, each behind those that it depends on."""
    for function in wanted:
        if function not in given:
            yield from _missing(parameters_of(function).values(), given)
            yield function


def _claim(
    handler: Handler,
    payload: str,
    number: int,
    *,
    attempt: int = 1,
    max_attempts: int | None = None,
    timeout: float | None = None,
    **more: Any,
) -> Claim:
    fields = {"task_id": number, "queue": handler.queue, "priority": 0, "request_id": "", "trace_context": "", **more}
    return Claim(
        attempt=attempt,
        type=handler.name,
        payload=payload,
        max_attempts=max_attempts or handler.retry.max_attempts,
        failures=attempt - 1,
        retry=replace(handler.retry, jitter=0.0),
        timeout_seconds=timeout or handler.timeout_seconds,
        deadline_seconds=handler.deadline_seconds,
        wait_seconds=0.0,
        age_seconds=0.0,
        **fields,
    )


class _Bench:
    """An executor without a worker around it: claims go in, outcomes come out."""

    def __init__(self, own: Registry, slots: int, connection: Any) -> None:
        self._progress: dict[int, list[Any]] = {}
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        self.executor = Executor(own, slots, self, Speeds(slots), lambda: GivenTransaction(connection))
        self.executor.completions = self

    def start(self, claim: Claim) -> int:
        """Begin an attempt; returns its task's id."""
        self._outcomes[claim.task_id] = asyncio.get_running_loop().create_future()
        self._progress[claim.task_id] = []
        self.executor.admit(claim, self, _WORKER)
        return claim.task_id

    async def result(self, task_id: int) -> AttemptResult:
        """Return how it ended."""
        outcome = await self._outcomes[task_id]
        return AttemptResult(
            status=outcome.kind.value,
            result=None if outcome.result is None else json.loads(outcome.result),
            error=outcome.error,
            delay_seconds=outcome.delay_seconds,
            progress=tuple(self._progress[task_id]),
            children=tuple(map(_submitted, outcome.children)),
        )

    # What the executor asks for (see worker.ports and worker.attempt).

    def write(self, attempt: Claimed, outcome: Outcome) -> None:
        """Take an outcome."""
        if not (future := self._outcomes[outcome.task_id]).done():
            future.set_result(outcome)
        self.executor.settled(attempt)

    def written(self, attempt: Claimed, outcome: Outcome, status: str) -> None:
        """Take an outcome that was committed with the handler's rows."""
        self.write(attempt, outcome)

    def lost(self, attempt: Claimed) -> None:
        """There is no lease that could be lost."""

    async def is_settled(self, worker_id: int, outcome: Outcome) -> bool:
        """Nothing is committed here."""
        return False

    def report(self, task_id: int, attempt: int, text: str) -> None:
        """Note what was reported; may be called from any thread."""
        self._progress[task_id].append(json.loads(text))

    def take(self, task_id: int, attempt: int) -> str | None:
        """Leave no report to the outcome: all of them are noted."""

    def settle(self) -> None:
        """There is no delivery."""


def _submitted(child: Child) -> Submitted:
    said = msgspec.to_builtins(child, builtin_types=(dict,))
    return Submitted(said.pop("type"), json.loads(said.pop("payload")), said)
