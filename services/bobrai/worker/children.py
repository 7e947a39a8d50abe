"""Makes the follow-up tasks that handlers ask for, by what their types say.

In: the outcome of an attempt. Out: NewTask values, to be stored with it by ``store/children.py``, in queues that are
there. The types of this worker are known to it; others are looked up, and known for a while.
"""

import time
from collections.abc import Sequence
from typing import Final

from pydantic_core import from_json

from bobrai.domain import limits, unique
from bobrai.domain.children import Child
from bobrai.domain.errors import StoreRejected
from bobrai.domain.task import Claim, NewTask, Outcome, TaskType
from bobrai.domain.unique import Held
from bobrai.handlers.registry import Registry
from bobrai.store import queues, task_types
from bobrai.store.children import Parent
from bobrai.store.pool import Database
from bobrai.telemetry import metrics

_KNOWN_SECONDS: Final = 5.0  # until a type of other workers is looked up again
_PAYLOAD_PER_WEIGHT: Final = 8 * 1024  # so much of it counts as one more row


class ChildRefused(StoreRejected):
    """A task that a handler asks for cannot be made as it is; the message says why."""


class Children:
    """What this process knows of types and queues, for the tasks that its handlers ask for."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._types: dict[str, TaskType] = {}  # of other workers
        self._read_at = float("-inf")
        self._queues: set[str] = set()  # a queue that is removed meanwhile comes back with its first task

    async def of(self, outcome: Outcome, claim: Claim, trace_context: str) -> Parent:
        """Return the outcome with the tasks that it leaves; raises ChildRefused and DatabaseUnavailable."""
        types = await self._types_of({child.type for child in outcome.children})
        tasks = [_task(child, types[child.type], claim, trace_context) for child in outcome.children]
        await self._have_queues({task.queue for task in tasks})
        return Parent(outcome, tasks)

    async def _types_of(self, names: set[str]) -> dict[str, TaskType]:
        found = {name: handler.task_type for name in names if (handler := self._registry.get(name)) is not None}
        foreign = [name for name in names if name not in found]
        if not foreign:
            return found
        now = time.monotonic()
        if now - self._read_at > _KNOWN_SECONDS or any(name not in self._types for name in foreign):
            self._types = {type_.name: type_ for type_ in await task_types.every(self._database)}
            self._read_at = now
        for name in foreign:
            if name not in self._types:
                raise ChildRefused(f"{name!r}, which the handler has submitted, is not a known task type")
            found[name] = self._types[name]
        return found

    async def _have_queues(self, names: set[str]) -> None:
        if names <= self._queues:
            return
        there = set(await queues.live(self._database))
        missing = names - there
        if len(there) + len(missing) > limits.MAX_QUEUES:
            raise ChildRefused(
                f"{min(missing)!r}, to which the handler has submitted a task, would be one queue more than "
                f"{limits.MAX_QUEUES}"
            )
        if missing:
            await queues.ensure(self._database, sorted(missing))
        self._queues = there | names


def _task(child: Child, type_: TaskType, claim: Claim, trace_context: str) -> NewTask:
    return NewTask(
        type=child.type,
        payload=child.payload,
        queue=child.queue or type_.queue,
        priority=child.priority,
        retry=child.retry_of(type_.retry),
        timeout_seconds=child.timeout_seconds or type_.timeout_seconds,
        delay_seconds=child.delay_seconds or 0.0,
        run_at=child.run_at,
        deadline_seconds=child.deadline_seconds or type_.deadline_seconds,
        deadline_at=child.deadline_at,
        expires_seconds=child.expires_seconds,
        expires_at=child.expires_at,
        request_id=claim.request_id,
        trace_context=trace_context,
        client_id=claim.client_id,
        unique=_held(child, type_),
    )


def _held(child: Child, type_: TaskType) -> Held | None:
    rule = child.unique_of(type_.unique)
    if rule is None:
        return None
    try:
        return unique.held(rule, type_.name, from_json(child.payload))
    except LookupError:
        raise ChildRefused(
            f"the payload of a task of type {type_.name!r}, which the handler has submitted, has nothing at "
            f"{rule.key!r}, by which there is one at a time"
        ) from None


def weight(outcome: Outcome) -> int:
    """Return how many rows it counts as where many are written together."""
    return 1 + sum(1 + len(child.payload) // _PAYLOAD_PER_WEIGHT for child in outcome.children)


def count(parent: Parent, duplicates: Sequence[int]) -> None:
    """Count tasks that are stored, and those that were there before."""
    for index, task in enumerate(parent.children):
        counted = metrics.TASKS_DUPLICATE if index in duplicates else metrics.TASKS_SUBMITTED
        counted.labels(task.queue, task.type).inc()
