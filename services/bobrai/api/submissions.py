"""Accepting tasks: envelopes become rows, and an answer is given only after the commit.

In: the body of a request, its id, trace and perhaps an idempotency key. Out: ids. Everything that can be refused is
refused here, before the group commit, where requests of many clients share one statement. The dispatcher finds the
rows.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final, NamedTuple

from bobrai.api import allowances, problems, schemas, uniqueness
from bobrai.api.admission import Admission, Room
from bobrai.api.allowances import Allowances
from bobrai.api.catalog import Catalog
from bobrai.api.decoding import Envelope, Envelopes
from bobrai.api.problems import Fault
from bobrai.domain import limits
from bobrai.domain.access import Grant, Principal
from bobrai.domain.errors import DatabaseUnavailable, StoreRejected, SubmissionRefused
from bobrai.domain.retry import Retry
from bobrai.domain.task import IdempotencyKey, NewTask
from bobrai.runtime.checkpoint import checkpoint
from bobrai.runtime.group_commit import GroupCommit
from bobrai.store import submission, unique
from bobrai.store.patience import PatientDatabase
from bobrai.store.submission import Stored
from bobrai.telemetry import metrics

_TASKS_PER_FLUSH: Final = 1000
# One flush under way makes the largest batches: measured 2 to 9 % less CPU per task here than two, for 4 to 8 % fewer
# requests per second.
_PARALLEL_FLUSHES: Final = 1
_PARALLEL_UNIQUE: Final = 2
_LONGEST_STEP_SECONDS: Final = 0.01  # of a batch, until others have their turn; one item may take longer
# So much payload counts as one more task of a flush, so that a thousand large ones are not one statement.
_PAYLOAD_PER_WEIGHT: Final = 8 * 1024
_ROUNDS: Final = 5  # of making queues for one request
_QUEUE_OF_TYPE_OUTSIDE: Final = "is required: the type's own queue is none that the credential reaches"


class Origin(NamedTuple):
    """Where tasks come from: kept with each of them."""

    request_id: str
    trace_context: str
    principal: Principal


class Accepted(NamedTuple):
    """What a client is told of its tasks; ``replayed``: it was told before, under the same key.

    ``duplicates``: places of those that were there before.
    """

    ids: Sequence[int]
    duplicates: Sequence[int]
    replayed: bool
    warnings: list[str]  # why no living worker can run some of them now


class Submissions:
    """The way from envelopes to committed rows."""

    def __init__(self, database: PatientDatabase, catalog: Catalog, rooms: Allowances) -> None:
        self._database = database
        self._allowances = rooms
        self._catalog = catalog
        self._commits: GroupCommit[Sequence[NewTask], Sequence[int]] = GroupCommit(
            "submit", self._flush, max_batch=_TASKS_PER_FLUSH, parallel=_PARALLEL_FLUSHES, weight=_weight
        )
        # Of their own, because they may wait: for alike tasks under way, and for hints of those that are replaced.
        self._unique_commits: dict[bool, GroupCommit[Sequence[NewTask], Stored]] = {
            replaces: GroupCommit(
                "submit_replacing" if replaces else "submit_unique",
                self._flush_unique,
                max_batch=_TASKS_PER_FLUSH,
                parallel=_PARALLEL_UNIQUE,
                weight=_weight,
            )
            for replaces in (False, True)
        }
        self._large = asyncio.Lock()
        self._submitted = metrics.TASKS_SUBMITTED.labels
        self._duplicates = metrics.TASKS_DUPLICATE.labels

    async def accept(
        self,
        envelopes: Envelopes,
        faults: list[Fault],
        origin: Origin,
        key: IdempotencyKey | None,
        *,
        large: Callable[[], Awaitable[object]] | None = None,
    ) -> Accepted:
        """Store the tasks of one request, all or none.

        ``large`` ones are looked at one after the other; it is awaited when it is their turn, and may raise.
        ``faults`` gets what the decoder of the envelopes finds wrong. Raises a 422 problem, QueueFull,
        IdempotencyMismatch, or Unavailable when the outcome is unknown.
        """
        tasks: Sequence[NewTask] = ()
        room: Room | None = None
        try:
            room = await self._allowances.room(origin.principal)
            # Each holds up everybody else for a moment at a time: many at once would make one long moment of it.
            async with nullcontext() if large is None else self._large:
                if large is not None:
                    await large()
                tasks = await self._prepare(envelopes, faults, origin)
            # Nothing is waited for until all are counted: the queues are there, and nobody removes them meanwhile.
            admitted = self._admit(tasks, room)
        except (problems.Problem, SubmissionRefused):
            # What was accepted once is answered again, even if the queue is full or the type gone by now.
            first = None if key is None else await submission.lookup(self._database, key)
            if first is None:
                raise
            return Accepted(*first, replayed=True, warnings=self._warnings(tasks))
        unmade: Sequence[int] = range(len(tasks))
        try:
            stored, replayed = await self._store(tasks, key)
            if not replayed:
                unmade = stored.duplicates
                self._count(tasks, unmade)
        except StoreRejected as error:
            raise problems.unstorable() from error
        finally:
            if unmade:
                self._give_back(admitted, room, [tasks[index].queue for index in unmade])
        return Accepted(*stored, replayed, self._warnings(tasks))

    async def _store(self, tasks: Sequence[NewTask], key: IdempotencyKey | None) -> tuple[Stored, bool]:
        """Return what is stored, and whether it was before, under the same key."""
        rules = [task.unique for task in tasks if task.unique is not None]
        if key is None and rules:
            return await self._unique_commits[any(rule.replace for rule in rules)].put(tasks), False
        if key is None:
            return Stored(await self._commits.put(tasks)), False
        submit_keyed = unique.submit_keyed if rules else submission.submit_keyed
        stored = await submit_keyed(self._database, tasks, key)
        checkpoint("api.committed")
        return stored

    def _count(self, tasks: Sequence[NewTask], duplicates: Sequence[int]) -> None:
        known = set(duplicates)
        for index, task in enumerate(tasks):
            counted = self._duplicates if index in known else self._submitted
            counted(task.queue, task.type).inc()

    async def idle(self) -> None:
        """Return once every submission that is under way is answered."""
        await self._commits.idle()
        for commits in self._unique_commits.values():
            await commits.idle()

    async def _flush(self, requests: Sequence[Sequence[NewTask]]) -> Sequence[Sequence[int]]:
        ids = await submission.submit(self._database, [task for tasks in requests for task in tasks])
        checkpoint("api.committed")
        answers, start = [], 0
        for tasks in requests:
            answers.append(ids[start : start + len(tasks)])
            start += len(tasks)
        return answers

    async def _flush_unique(self, requests: Sequence[Sequence[NewTask]]) -> Sequence[Stored]:
        stored = await unique.submit(self._database, requests)
        checkpoint("api.committed")
        return stored

    async def _prepare(self, envelopes: Envelopes, faults: list[Fault], origin: Origin) -> list[NewTask]:
        """Check one envelope after the other, so that no more than one payload's value is in memory."""
        catalog = self._catalog
        places: dict[str, str] = {}  # where each queue is named first
        tasks = []
        grant = origin.principal.grant
        narrowed = grant.is_narrowed
        outside: list[Fault] = []
        sure = False  # that the catalog is younger than this request
        began = time.perf_counter()
        for envelope in envelopes:
            if envelope is not None and not (narrowed and _is_outside(envelope, grant, outside)):
                if not sure and not catalog.knows(envelope.fields.type, envelope.fields.queue):
                    await self._database.outlast(catalog.reread)
                    sure = True
                task = self._checked(envelope, origin, faults)
                if task is not None:
                    tasks.append(task)
                    places.setdefault(task.queue, envelope.place)
                    if narrowed and not grant.has_queue(task.queue):  # its type's
                        outside.append(Fault(f"{envelope.place}/queue", _QUEUE_OF_TYPE_OUTSIDE))
            if time.perf_counter() - began > _LONGEST_STEP_SECONDS:
                await asyncio.sleep(0)  # a large batch must not hold up everybody else
                began = time.perf_counter()
        if outside:
            raise problems.outside_grant(outside)
        if faults:
            raise problems.invalid(faults)
        await self._have_queues(places)
        return tasks

    def _checked(self, envelope: Envelope, origin: Origin, faults: list[Fault]) -> NewTask | None:
        fields = envelope.fields
        known = self._catalog.types.get(fields.type)
        if known is None:
            faults.append(Fault(f"{envelope.place}/type", f"{fields.type!r} is not a known task type"))
            return None
        if wrong := known.faults(fields.payload, len(envelope.payload), f"{envelope.place}/payload"):
            faults += wrong
            return None
        type_ = known.type
        alike = None
        if type_.unique is not None or fields.unique is not None:
            faults_before = len(faults)
            alike = uniqueness.of(envelope, type_, origin.principal, faults)
            if len(faults) > faults_before:
                return None
        plain = fields.retry is None and fields.max_attempts is None
        return NewTask(
            type=type_.name,
            payload=envelope.payload,
            queue=fields.queue or type_.queue,
            priority=fields.priority,
            retry=type_.retry if plain else _merged(type_.retry, fields),
            timeout_seconds=fields.timeout_seconds or type_.timeout_seconds,
            delay_seconds=fields.delay_seconds or 0.0,
            run_at=fields.run_at,
            deadline_seconds=fields.deadline_seconds or type_.deadline_seconds,
            deadline_at=fields.deadline_at,
            expires_seconds=fields.expires_seconds,
            expires_at=fields.expires_at,
            request_id=origin.request_id,
            trace_context=origin.trace_context,
            client_id=origin.principal.id,
            unique=alike,
        )

    async def _have_queues(self, places: Mapping[str, str]) -> None:
        catalog = self._catalog
        for _ in range(_ROUNDS):  # a queue that was there may be removed while others are made
            missing = {name for name in places if name not in catalog.queues}
            if not missing:
                return
            wrong = {
                name: f"{name!r} does not exist, and tasks make no queues here: make it with PUT /api/v1/queues/{name}"
                for name in missing
                if not catalog.may_make(name)
            }
            if not wrong and not await self._database.outlast(partial(catalog.make_queues, missing)):
                wrong = {name: problems.one_too_many(name) for name in missing}
            if wrong:
                raise problems.invalid(
                    [Fault(f"{place}/queue", wrong[name]) for name, place in places.items() if name in wrong]
                )
        raise DatabaseUnavailable("a queue is made and not there, again and again")

    def _warnings(self, tasks: Sequence[NewTask]) -> list[str]:
        """Return why no living worker can run some of these tasks now, each reason once."""
        found: dict[str, None] = {}
        for task in tasks:
            if lack := self._catalog.lack(task.type, task.queue):
                found[lack] = None
                if len(found) == limits.MAX_WARNINGS:
                    break
        return list(found)

    def _admit(self, tasks: Sequence[NewTask], room: Room | None) -> dict[str, Admission]:
        allowances.admit(room, len(tasks))
        wanted = {tasks[0].queue: 1} if len(tasks) == 1 else Counter(task.queue for task in tasks)
        admitted: dict[str, Admission] = {}
        try:
            for queue, count in wanted.items():
                admission = self._catalog.queues[queue]
                admission.admit(count)
                admitted[queue] = admission
        except SubmissionRefused:
            if room is not None:
                room.give_back(len(tasks))
            for queue, admission in admitted.items():
                admission.give_back(wanted[queue])
            raise
        return admitted

    @staticmethod
    def _give_back(admitted: Mapping[str, Admission], room: Room | None, queues: Sequence[str]) -> None:
        """Give back the room of tasks that no row has come of, by their queues."""
        if room is not None:
            room.give_back(len(queues))
        for queue, count in Counter(queues).items():
            admitted[queue].give_back(count)


def _is_outside(envelope: Envelope, grant: Grant, outside: list[Fault]) -> bool:
    """Note what a task names outside of the grant, without a look whether there is such a thing."""
    type_, queue = envelope.fields.type, envelope.fields.queue
    if not grant.has_type(type_):
        outside.append(Fault(f"{envelope.place}/type", f"{type_!r} is none of the types that the credential reaches"))
        return True
    if queue is not None and not grant.has_queue(queue):
        outside.append(Fault(f"{envelope.place}/queue", f"{queue!r} is none of the queues that the credential reaches"))
        return True
    return False


def _weight(tasks: Sequence[NewTask]) -> int:
    return sum(1 + len(task.payload) // _PAYLOAD_PER_WEIGHT for task in tasks)


def _merged(retry: Retry, fields: schemas.TaskSubmission) -> Retry:
    changes = {} if fields.retry is None else fields.retry.model_dump(exclude_unset=True)
    return retry.changed(changes, fields.max_attempts)
