"""The handlers of /tasks: submit, read, wait, list, cancel, replay.

In: a Request. Out: a Reply. Each handler is thin: it asks ``schemas`` what the request says, ``submissions`` or
``store`` to do it, and ``views`` for the answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bobrai.api import cursor, decoding, explaining, idempotency, refusals, schemas, views
from bobrai.api.allowances import Allowances
from bobrai.api.decoding import Envelopes
from bobrai.api.endpoint import ANSWER_SECONDS
from bobrai.api.problems import Fault
from bobrai.api.submissions import Accepted, Origin, Submissions
from bobrai.api.waiters import Waiters
from bobrai.api.web import Reply, Request
from bobrai.domain.access import Principal
from bobrai.domain.errors import TaskNotFound
from bobrai.domain.task import FINAL, TaskStatus
from bobrai.runtime.group_commit import GroupCommit
from bobrai.settings.api import ApiSettings
from bobrai.store import tasks, workers
from bobrai.store.pool import Record, Transactional
from bobrai.telemetry import metrics

FIRST_PATH: Final = "/tasks"  # where the first version took tasks
_MAX_ID: Final = 2**63 - 1
_UNKEPT: Final = ((b"cache-control", b"no-store"),)  # without an ETag, there is nothing to be gained by keeping it
_REPLAYED: Final = ((b"idempotency-replayed", b"true"),)
_READS_PER_QUERY: Final = 50
_PARALLEL_READS: Final = 2
# Rows of a page come in portions, and the page ends early when its JSON grows large.
_ROWS_PER_PORTION: Final = 100
_PAGE_BYTES: Final = 4 * 1024 * 1024


class TaskRoutes:
    """Handlers that share the submissions, the readers and the waiters of a process."""

    def __init__(
        self,
        database: Transactional,
        submissions: Submissions,
        allowances: Allowances,
        waiters: Waiters,
        settings: ApiSettings,
    ) -> None:
        self._database = database
        self._allowances = allowances
        self._submissions = submissions
        self._waiters = waiters
        self._ttl = settings.idempotency_ttl_seconds
        # Reads that come together cost one query, as writes do.
        self._reads: GroupCommit[int, Record | None] = GroupCommit(
            "read", self._read_all, max_batch=_READS_PER_QUERY, parallel=_PARALLEL_READS
        )

    async def submit(self, request: Request) -> Reply:
        """Accept one task."""
        accepted, headers = await self._accept(request, "single", decoding.single)
        request.task_id = task_id = accepted.ids[0]
        location = (b"location", b"%s/%d" % ((request.prefix + request.route).encode("ascii"), task_id))
        # At its path the first version's clients find its answer and nothing more.
        warnings = msgspec.UNSET if request.route == FIRST_PATH else accepted.warnings or msgspec.UNSET
        if accepted.duplicates:
            found = views.TaskFound(task_id, warnings=warnings)
            return Reply(views.encode(found), 200, (location, *headers))
        body = views.encode(views.TaskCreated(task_id, warnings)) if warnings else b'{"task_id":%d}' % task_id
        return Reply(body, 201, (location, *headers))

    async def submit_batch(self, request: Request) -> Reply:
        """Accept many tasks, all or none."""
        accepted, headers = await self._accept(request, "batch", decoding.batch)
        duplicates = list(accepted.duplicates)
        answer = views.BatchCreated(list(accepted.ids), duplicates or msgspec.UNSET, accepted.warnings or msgspec.UNSET)
        return Reply(views.encode(answer), 200 if len(duplicates) == len(accepted.ids) else 201, headers)

    async def read(self, request: Request) -> Reply:
        """Return a task, at once or when it is final."""
        task_id = _id_of(request)
        wait = schemas.query(schemas.TaskQuery, request.query_string).wait
        row = await self._read(task_id, request.principal)
        if wait > 0 and row["status"] not in FINAL:
            request.allow(wait + ANSWER_SECONDS)
            gone = asyncio.ensure_future(request.wait_gone())
            try:
                with request.deadlines.aside():
                    await self._waiters.wait(task_id, wait, gone)
            finally:
                gone.cancel()
            row = await self._read(task_id, request.principal)
        body = views.encode(views.task(row, request.principal))
        tag = views.etag(body)
        headers = ((b"etag", tag), (b"cache-control", b"no-cache"))
        if _matches(request.headers.get(b"if-none-match"), tag):
            return Reply(status=304, headers=headers)
        return Reply(body, headers=headers)

    async def list_page(self, request: Request) -> Reply:
        """Return a page of tasks, newest first."""
        asked = schemas.query(schemas.TaskListQuery, request.query_string)
        wanted = tasks.TaskFilter(
            status=asked.status,
            type=asked.type,
            queue=asked.queue,
            created_after=asked.created_after,
            created_before=asked.created_before,
            parent_id=asked.parent_id,
            seen_by=request.principal,
        )
        before_id = None if asked.cursor is None else cursor.decode(asked.cursor)
        rows, more = await self._page(wanted, before_id, asked.limit)
        seen = [views.task(row, request.principal) for row in rows]
        page = views.TaskPage(seen, cursor.encode(rows[-1]["id"]) if more else None)
        return Reply(views.encode(page), headers=_UNKEPT)

    async def explain(self, request: Request) -> Reply:
        """Return why a task is where it is."""
        task_id = _id_of(request)
        schemas.query(schemas.NoQuery, request.query_string)
        await self._require(task_id, request.principal)
        row = await tasks.explain(self._database, task_id, most_ahead=explaining.MOST_AHEAD)
        living = await workers.live(self._database)
        return Reply(views.encode(explaining.explain(row, living, request.principal)), headers=_UNKEPT)

    async def cancel(self, request: Request) -> Reply:
        """Cancel a task, or ask its worker to stop."""
        task_id = _id_of(request)
        schemas.query(schemas.NoQuery, request.query_string)
        await self._require(task_id, request.principal)
        before = await tasks.cancel(self._database, task_id, by=request.author)
        row = await self._read(task_id, request.principal)
        if before is TaskStatus.PENDING:
            metrics.TASKS_FINISHED.labels(row["queue"], row["type"], "cancelled").inc()
        return Reply(views.encode(views.task(row, request.principal)))

    async def replay(self, request: Request) -> Reply:
        """Give a final task a fresh set of attempts."""
        task_id = _id_of(request)
        schemas.query(schemas.NoQuery, request.query_string)
        await self._require(task_id, request.principal)
        with await self._allowances.taken(request.principal):
            await tasks.replay(self._database, task_id, by=request.author)
        row = await self._read(task_id, request.principal)
        metrics.TASKS_REPLAYED.labels(row["queue"], row["type"]).inc()
        return Reply(views.encode(views.task(row, request.principal)))

    async def _accept(
        self, request: Request, kind: str, decode: Callable[[bytes, list[Fault]], Envelopes]
    ) -> tuple[Accepted, tuple[tuple[bytes, bytes], ...]]:
        schemas.query(schemas.NoQuery, request.query_string)
        body, request.body = request.body, b""  # it goes as soon as its tasks are made
        principal = request.principal
        header = request.headers.get(b"idempotency-key")
        key = idempotency.key_of(header, kind, body, ttl_seconds=self._ttl, client_id=principal.id)
        origin = Origin(request.request_id, request.trace_context, principal)
        faults: list[Fault] = []
        request.unread, large = True, len(body) > decoding.LARGE_BYTES
        envelopes = _noting_the_end(request, decode(body, faults))
        del body
        with refusals.counted():
            accepted = await self._submissions.accept(
                envelopes, faults, origin, key, large=request.confirm if large else None
            )
        return accepted, _REPLAYED if accepted.replayed else ()

    async def _require(self, task_id: int, principal: Principal) -> None:
        """Raise TaskNotFound for a task that is outside of the principal's grant; what decides it never changes."""
        if principal.grant.is_narrowed:
            await self._read(task_id, principal)

    async def _read(self, task_id: int, principal: Principal) -> Record:
        row = await self._reads.put(task_id)
        if row is None or not principal.has_task(queue=row["queue"], type=row["type"], client_id=row["client_id"]):
            raise TaskNotFound(task_id)
        return row

    async def _read_all(self, task_ids: Sequence[int]) -> Sequence[Record | None]:
        rows = await tasks.read(self._database, set(task_ids))
        return [rows.get(task_id) for task_id in task_ids]

    async def _page(self, wanted: tasks.TaskFilter, before_id: int | None, limit: int) -> tuple[list[Record], bool]:
        rows: list[Record] = []
        size = 0
        while True:
            portion = min(limit - len(rows), _ROWS_PER_PORTION)
            found = await tasks.page(self._database, wanted, before_id=before_id, limit=portion + 1)
            for row in found[:portion]:
                rows.append(row)
                size += sum(len(row[name] or "") for name in ("payload", "result", "errors", "progress"))
                if size >= _PAGE_BYTES:
                    return rows, row is not found[-1]
            if len(found) <= portion or len(rows) == limit:
                return rows, len(found) > portion
            before_id = rows[-1]["id"]


def _id_of(request: Request) -> int:
    text = request.params["task_id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= _MAX_ID):
        raise TaskNotFound(0)
    request.task_id = int(text)
    return request.task_id


def _matches(header: bytes | None, tag: bytes) -> bool:
    """Whether If-None-Match names this representation, by the weak comparison that it asks for."""
    if header is None:
        return False
    return any(each.strip().removeprefix(b"W/") in {tag, b"*"} for each in header.split(b","))


def _noting_the_end(request: Request, envelopes: Envelopes) -> Envelopes:
    yield from envelopes
    request.unread = False
