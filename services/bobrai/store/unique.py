"""Submissions with tasks of which there is one at a time: a row of ``unique_tasks`` per hash says which.

In: requests of NewTask values, or a result with those that it leaves. Out: ids, and which tasks were there before. All
in one transaction of a few statements: it locks the rows of all hashes in order, so that no two wait for each other,
and then looks whether their tasks still hold them. Plain tasks never come here, save beside others in one request.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from msgspec import structs

from bobrai.domain.errors import ClaimLost, DatabaseUnavailable
from bobrai.domain.task import IdempotencyKey, NewTask, Outcome
from bobrai.domain.unique import Held
from bobrai.store import attempts
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import ROUNDS, Executor, Record, Transactional
from bobrai.store.queries import statement
from bobrai.store.records import task_columns
from bobrai.store.submission import Stored, lookup

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_TAKE_HASHES: Final = statement("take_hashes")
_LOCK_REPLACED: Final = statement("lock_replaced")
_LOCK_HINTS: Final = statement("lock_hints")
_LOCK_HELD: Final = statement("lock_held")
_HOLDERS: Final = statement("holders")
_SUBMIT: Final = statement("submit_unique")
_REPLACE: Final = statement("replace_waiting")
_AWAIT: Final = statement("await_task")
_TAKE_KEY: Final = statement("take_key")
_NOTE: Final = statement("note_tasks")
_PRUNE: Final = statement("prune_unique")

Result = TypeVar("Result")

_DEADLOCK: Final = "40P01"
_LOST: Final = ("08", "57P")  # of connections that ended; without a commit nothing took effect
# Of the sixteen columns of a new task: those that replace what a waiting one has, in the order of `replace_waiting`.
_REPLACING: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15)


class _Locked(Exception):
    """Somebody else holds the row of a task that is to be replaced."""

    def __init__(self, task_id: int) -> None:
        super().__init__(task_id)
        self.task_id = task_id


class _Request:
    """Tasks of one transaction, and what is decided of each: the task that it makes, or the one that is there."""

    def __init__(self, tasks: Sequence[NewTask]) -> None:
        self.tasks = tasks
        self.first: dict[bytes, int] = {}  # of those that are alike, by place
        self.latest: dict[bytes, int] = {}  # of those, the last that replaces what the others say
        self.rules: dict[bytes, Held] = {}  # of the first
        for index, task in enumerate(tasks):
            if task.unique is not None:
                self.first.setdefault(task.unique.hash, index)
                self.rules.setdefault(task.unique.hash, task.unique)
                if task.unique.replace:
                    self.latest[task.unique.hash] = index

    def task(self, index: int) -> NewTask:
        """Return a task that is to be made: where it waits as it says itself, the rest as the latest alike has it."""
        task = self.tasks[index]
        if task.unique is None:
            return task
        latest = self.tasks[self.latest.get(task.unique.hash, index)]
        return structs.replace(latest, queue=task.queue, client_id=task.client_id)


async def submit(database: PatientDatabase, requests: Sequence[Sequence[NewTask]]) -> list[Stored]:
    """Store the tasks of requests, all or none; of those that are alike to one that is there its id is returned.

    Raises what ``Transactional.transaction`` does; an outage is waited out as long as nothing is committed.
    """
    tasks = [task for request in requests for task in request]
    store = partial(_store, _Request(tasks), None)
    stored = cast("Stored", await database.outlast(partial(_until_free, database, store)))  # no key is taken
    found, start = [], 0
    known = set(stored.duplicates)
    for request in requests:
        places = range(len(request))
        ids = stored.ids[start : start + len(request)]
        found.append(Stored(ids, [place for place in places if start + place in known] if known else ()))
        start += len(request)
    return found


async def submit_keyed(database: PatientDatabase, tasks: Sequence[NewTask], key: IdempotencyKey) -> tuple[Stored, bool]:
    """Do the same for one request under its key, or return what the first request with this key stored.

    Returns that and whether it is a replay of the first answer. Raises IdempotencyMismatch besides.
    """
    store = partial(_store, _Request(tasks), key)
    for _ in range(ROUNDS):
        stored = await database.outlast(partial(_until_free, database, store))
        if stored is not None:
            return stored, False
        first = await lookup(database, key)
        if first is not None:
            return first, True
        # The first request's key expired between the two statements.
    raise DatabaseUnavailable("a key is neither stored nor there: a trigger on idempotency_keys keeps it away")


async def complete(database: Transactional, worker_id: int, parent: Outcome, tasks: Sequence[NewTask]) -> Stored | None:
    """Record a result and store the tasks that it leaves; returns None, and writes nothing, when it is not accepted."""
    try:
        return await _until_free(database, partial(_complete, worker_id, parent, _Request(tasks)))
    except ClaimLost:
        return None


async def complete_within(
    connection: "PoolConnectionProxy[Record]", worker_id: int, parent: Outcome, tasks: Sequence[NewTask]
) -> Stored:
    """Do the same in the caller's transaction, which is to be rolled back after an error.

    Raises ClaimLost when the result is not accepted, DatabaseUnavailable when somebody holds a task to be replaced.
    """
    try:
        return await _complete(worker_id, parent, _Request(tasks), connection)
    except _Locked as locked:
        raise DatabaseUnavailable(f"task {locked.task_id}, which is to be replaced, is locked", "55P03") from locked


async def prune(database: Executor, *, limit: int) -> int:
    """Look at so many rows that were not looked at for long, and remove those of no use; returns how many it saw."""
    rows = await database.fetch(_PRUNE, limit)
    return int(rows[0]["seen"])


async def _until_free(
    database: Transactional, store: Callable[["PoolConnectionProxy[Record]"], Awaitable[Result]]
) -> Result:
    for _ in range(ROUNDS):
        committing = False
        try:
            async with database.transaction() as connection:
                stored = await store(connection)
                committing = True
        except _Locked as locked:
            await database.fetch(_AWAIT, locked.task_id)  # holding nothing meanwhile
        except DatabaseUnavailable as error:
            if error.sqlstate == _DEADLOCK:
                continue
            if not committing and (not error.sqlstate or error.sqlstate.startswith(_LOST)):
                error.without_effect = True
            raise
        else:
            return stored
    raise DatabaseUnavailable("a task is locked, again and again")


async def _store(
    request: _Request, key: IdempotencyKey | None, connection: "PoolConnectionProxy[Record]"
) -> Stored | None:
    """Store a request within a transaction; returns None when its key is taken, with nothing written."""
    if key is not None and not await connection.fetch(
        _TAKE_KEY, key.client_id, key.key, key.fingerprint, key.ttl_seconds
    ):
        return None
    new = await _lock(connection, request)
    there = await _look(connection, request, new)
    stored = await _fill(connection, request, new, there, key="" if key is None else key.key)
    if key is not None:
        known = sorted({task_id for task_id, _ in there.values()})
        await connection.fetch(_NOTE, key.client_id, key.key, list(stored.ids), known)
    return stored


async def _complete(
    worker_id: int, parent: Outcome, request: _Request, connection: "PoolConnectionProxy[Record]"
) -> Stored:
    """Write a result once the hashes are locked, which all lock first, and before the look whether it holds one."""
    new = await _lock(connection, request)
    if not await attempts.complete(connection, worker_id, [parent]):
        raise ClaimLost("another attempt owns the task")
    there = await _look(connection, request, new)
    return await _fill(connection, request, new, there, parent_id=parent.task_id)


async def _fill(
    connection: "PoolConnectionProxy[Record]",
    request: _Request,
    new: dict[bytes, int],
    there: dict[bytes, tuple[int, bool]],
    *,
    key: str = "",
    parent_id: int | None = None,
) -> Stored:
    """Store what is not there, under the ids that it has already, and replace what is to be replaced."""
    made, replacing = [], {}
    for index, task in enumerate(request.tasks):
        if task.unique is None:
            made.append(index)
        elif task.unique.hash not in there:
            if request.first[task.unique.hash] == index:
                made.append(index)
        elif there[task.unique.hash][1] and task.unique.hash in request.latest:
            replacing[there[task.unique.hash][0]] = request.latest[task.unique.hash]
    ids = await _make(connection, request, made, new, key, parent_id)
    if replacing:
        await connection.fetch(_LOCK_HINTS, list(replacing))
        await connection.fetch(_LOCK_HELD, list(replacing))
        await connection.fetch(_REPLACE, *_contents(request, replacing))
    return _stored(request, dict(zip(made, ids, strict=True)), {hash_: each[0] for hash_, each in there.items()})


async def _lock(connection: "PoolConnectionProxy[Record]", request: _Request) -> dict[bytes, int]:
    """Lock the rows of all hashes; returns the ids that those have which are new."""
    hashes = sorted(request.first)
    rules = [request.rules[hash_] for hash_ in hashes]
    rows = await connection.fetch(
        _TAKE_HASHES, hashes, [rule.while_ for rule in rules], [rule.for_seconds for rule in rules]
    )
    return {row["hash"]: row["task_id"] for row in rows}


async def _look(
    connection: "PoolConnectionProxy[Record]", request: _Request, new: dict[bytes, int]
) -> dict[bytes, tuple[int, bool]]:
    """Return the task that holds each of the other hashes, and whether it waits; not those that hold it no more."""
    taken = [hash_ for hash_ in sorted(request.first) if hash_ not in new]
    if not taken:
        return {}
    replaced = [hash_ for hash_ in taken if hash_ in request.latest]
    locked = {row["id"] for row in await connection.fetch(_LOCK_REPLACED, replaced)} if replaced else set()
    there = {}
    for row in await connection.fetch(_HOLDERS, taken):
        hash_, task_id = row["hash"], row["task_id"]
        if row["is_pending"] and hash_ in request.latest and task_id not in locked:
            raise _Locked(task_id)
        if row["holds"]:
            there[hash_] = task_id, row["is_pending"]
    return there


async def _make(
    connection: "PoolConnectionProxy[Record]",
    request: _Request,
    made: list[int],
    new: dict[bytes, int],
    key: str,
    parent_id: int | None,
) -> list[int]:
    if not made:
        return []
    tasks = [request.task(index) for index in made]
    rules = [request.tasks[index].unique for index in made]
    rows = await connection.fetch(
        _SUBMIT,
        *task_columns(tasks),
        [None if rule is None else new.get(rule.hash) for rule in rules],
        [None if rule is None or rule.hash in new else rule.hash for rule in rules],
        [None if rule is None else rule.while_ for rule in rules],
        [None if rule is None else rule.for_seconds for rule in rules],
        key or None,
        parent_id,
    )
    ids: list[int] = rows[0]["ids"]
    return ids


def _contents(request: _Request, replacing: dict[int, int]) -> list[Any]:
    """Return the arrays that ``replace_waiting`` takes, of places in the request by the task to be replaced."""
    columns = task_columns([request.tasks[index] for index in replacing.values()])
    return [list(replacing), *(columns[number] for number in _REPLACING)]


def _stored(request: _Request, made: dict[int, int], there: dict[bytes, int]) -> Stored:
    ids, duplicates = [], []
    for index, task in enumerate(request.tasks):
        if task.unique is None or index in made:
            ids.append(made[index])
        else:
            duplicates.append(index)
            hash_ = task.unique.hash
            ids.append(there[hash_] if hash_ in there else made[request.first[hash_]])
    return Stored(ids, duplicates)
