"""What limits hold back and what they have let through: rows of ``held``, ``admissions`` and ``rate_buckets``.

In: due hints, and decisions, from the dispatcher. Out: lanes with what waits in them, and what counts as running. What
decides belongs into one transaction, which asks for ``lock`` first.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from bobrai.domain.limiting import Limits
from bobrai.store.outbox import DueHint
from bobrai.store.pool import Executor, Record, column
from bobrai.store.queries import statement
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_HOLD = statement("hold")
_SORT = statement("sort_due")
_AWAITED = statement("are_awaited")
_LOCK = statement("admit_lock")
_ADOPT = statement("adopt")
_RECOUNT = statement("recount")
_ADMITTED = statement("admitted")
_LOCK_OVER = statement("lock_over")
_DROP_OVER = statement("drop_over")
_LANES = statement("lanes")
_WAITING_LANES = statement("waiting_lanes")
_DISSOLVE = statement("dissolve")
_BUCKETS = statement("buckets")
_FILL = statement("fill_buckets")
_PRUNE = statement("prune_buckets")
_ADMIT = statement("admit")
_CONFIRM = statement("confirm_admissions")
_UNSTARTED = statement("unstarted")
_LIMITED = statement("limited")
_NAMES = statement("limited_names")

# For a transaction that holds the lock: its process may freeze in the middle, and others wait for it. The tables may
# have had a handful of rows when they were analyzed last, and a hundred thousand now.
BOUNDED: Final = "SET LOCAL idle_in_transaction_session_timeout = '3s'; SET LOCAL enable_seqscan = off"

_by_name: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_unreadable: set[str] = set()  # queues and types of which that is said already


class Limited(NamedTuple):
    """The limits in force, by queue and by type, and whether anything is held back or let through."""

    queues: Mapping[str, Limits]
    types: Mapping[str, Limits]
    under_way: bool

    @property
    def any(self) -> bool:
        """Whether there is anything to decide."""
        return bool(self.queues or self.types or self.under_way)


NOTHING_LIMITED: Final = Limited({}, {}, under_way=False)


class Names(NamedTuple):
    """Which queues and types have limits."""

    queues: frozenset[str]
    types: frozenset[str]


class Keys(NamedTuple):
    """What the limits of a task count it by: keys are empty where none is asked for."""

    queue: str
    type: str
    queue_key: str
    type_key: str


class Lane(NamedTuple):
    """Hints of a queue that limits treat alike; ``waiting`` is counted no further than needed."""

    id: bytes
    keys: Keys
    is_old: bool  # made by limits that are no longer in force
    waiting: int


class Passed(NamedTuple):
    """What is let through of one lane, and how much of that has not started."""

    keys: Keys
    admitted: int
    waiting: int


class Waiting(NamedTuple):
    """What waits in one lane, all of it."""

    keys: Keys
    tasks: int
    oldest_due_at: datetime


class Admitted(NamedTuple):
    """A hint that limits let through, and how long it has been due."""

    hint: DueHint
    keys: Keys
    waited_seconds: float


class Bound(NamedTuple):
    """What a limit counts by; scope is queue, queue_key, type or type_key."""

    scope: str
    name: str
    key: str


class Bucket(NamedTuple):
    """What is left of a rate: tokens, and tasks that were let through and had not started."""

    tokens: float
    waiting: int = 0
    age_seconds: float = 0.0  # since it was counted


async def limited(database: Executor) -> Limited:
    """Return what is limited now."""
    row = (await database.fetch(_LIMITED))[0]
    return Limited(_readable("queue", row["queues"]), _readable("type", row["types"]), row["under_way"])


def _readable(kind: str, text: str) -> dict[str, Limits]:
    """Return the limits by name; some that cannot be read, as of another release, are logged and bound nothing."""
    found = {}
    for name, raw in _by_name.decode(text).items():
        try:
            found[name] = msgspec.json.decode(raw, type=Limits)
        except msgspec.DecodeError as error:
            found[name] = Limits()
            if f"{kind}:{name}" not in _unreadable:
                _unreadable.add(f"{kind}:{name}")
                log.error("limits.unreadable", kind=kind, name=name, error=str(error))  # noqa: TRY400 - it says all
    return found


async def names(database: Executor) -> Names:
    """Return which queues and types are limited now."""
    row = (await database.fetch(_NAMES))[0]
    return Names(frozenset(row["queues"]), frozenset(row["types"]))


async def hold(transaction: Executor, hints: Sequence[DueHint]) -> set[int]:
    """Put those of these hints into lanes that a limit is for, in the transaction that took them; returns their ids."""
    columns = [list(values) for values in zip(*hints, strict=True)]
    return set(column(await transaction.fetch(_HOLD, *columns[:5]), "task_id"))


async def sort_due(database: Executor, queues: Sequence[str], *, limit: int) -> int:
    """Put due hints of those of these queues that are limited into lanes, about ``limit``; returns how many."""
    count: int = (await database.fetch(_SORT, list(queues), limit))[0]["sorted"]
    return count


async def are_awaited(database: Executor, queues: Sequence[str], limited: Sequence[str]) -> bool:
    """Return whether anything waits in lanes of these queues, or is due in the limited ones."""
    awaited: bool = (await database.fetch(_AWAITED, list(queues), list(limited)))[0]["awaited"]
    return awaited


async def lock(transaction: Executor) -> bool:
    """Return whether this transaction is the one that decides now."""
    ours: bool = (await transaction.fetch(_LOCK))[0]["ours"]
    return ours


async def count_anew(transaction: Executor) -> None:
    """Count what runs without an admission, and what was let through under other limits."""
    await transaction.fetch(_ADOPT)
    await transaction.fetch(_RECOUNT)


async def passed(database: Executor) -> list[Passed]:
    """Return what is let through and not over, by lane."""
    return [Passed(_keys(row), row["admitted"], row["waiting"]) for row in await database.fetch(_ADMITTED)]


async def settled(transaction: Executor) -> list[Passed]:
    """Take their places from attempts that are over, and return what is let through, by lane."""
    rows = await transaction.fetch(_ADMITTED)
    over = [task_id for row in rows for task_id in row["over"] or ()]
    locked = column(await transaction.fetch(_LOCK_OVER, over), "task_id") if over else []
    dropped = set(column(await transaction.fetch(_DROP_OVER, locked), "task_id")) if locked else set()
    return [
        Passed(
            _keys(row),
            row["admitted"] + sum(task_id not in dropped for task_id in row["over"] or ()),
            row["waiting"],
        )
        for row in rows
    ]


async def waiting(database: Executor, *, most: int, timeout: float) -> list[Waiting]:
    """Return what waits in lanes, of at most so many."""
    rows = await database.fetch(_WAITING_LANES, most, timeout=timeout)
    return [Waiting(_keys(row), row["waiting"], row["oldest_due_at"]) for row in rows]


async def lanes(transaction: Executor, after: Mapping[str, bytes], *, most: int, room: int) -> list[Lane]:
    """Return at most ``most`` lanes of each of these queues, those that follow the given one, by queue.

    Over all of them about ``room`` waiting hints are counted, and at least one in each.
    """
    rows = await transaction.fetch(_LANES, list(after), list(after.values()), most, room)
    return [Lane(row["lane"], _keys(row), row["is_old"], row["waiting"]) for row in rows]


def _keys(row: Record) -> Keys:
    return Keys(row["queue"], row["type"], row["queue_key"], row["type_key"])


async def dissolve(transaction: Executor, lane: Lane, *, limit: int) -> int:
    """Give hints of a lane back to the outbox, at most ``limit``; returns how many."""
    return len(await transaction.fetch(_DISSOLVE, lane.keys.queue, lane.id, limit))


async def buckets(database: Executor, names: Collection[Bound]) -> dict[Bound, Bucket]:
    """Return what was left of these rates when it was counted last; a full one is left out."""
    columns = [list(values) for values in zip(*names, strict=True)]
    rows = await database.fetch(_BUCKETS, *columns)
    return {
        Bound(row["scope"], row["name"], row["key"]): Bucket(row["tokens"], row["waiting"], row["age_seconds"])
        for row in rows
    }


async def fill(transaction: Executor, counted: Mapping[Bound, tuple[Bucket, float]]) -> None:
    """Store what is left of rates now, each with the seconds until it is full again."""
    names = sorted(counted)
    columns = [list(values) for values in zip(*names, strict=True)]
    left = [counted[name] for name in names]
    await transaction.fetch(
        _FILL,
        *columns,
        [bucket.tokens for bucket, _ in left],
        [bucket.waiting for bucket, _ in left],
        [full_after for _, full_after in left],
    )


async def prune_buckets(database: Executor, *, limit: int) -> int:
    """Delete rates that are full again, at most ``limit``; returns how many."""
    return len(await database.fetch(_PRUNE, limit))


async def admit(transaction: Executor, rooms: Iterable[tuple[Lane, int]]) -> list[Admitted]:
    """Let the most urgent hints of lanes through, of each at most its room."""
    wanted = list(rooms)
    rows = await transaction.fetch(
        _ADMIT,
        [lane.keys.queue for lane, _ in wanted],
        [lane.id for lane, _ in wanted],
        [room for _, room in wanted],
    )
    return [Admitted(_hint(row), _keys(row), row["waited_seconds"]) for row in rows]


def _hint(row: Record) -> DueHint:
    # It has waited for its turn, which is not the relay's lag.
    return DueHint(row["task_id"], row["attempt"], row["queue"], row["priority"], row["due_at"], 0.0)


async def confirm(database: Executor, task_ids: Collection[int]) -> None:
    """Note that the broker has the messages of these tasks."""
    await database.fetch(_CONFIRM, list(task_ids))


async def unstarted(
    transaction: Executor, queues: Collection[str], empty: Collection[str], *, older_than_seconds: float, limit: int
) -> list[DueHint]:
    """Return what was let through so long ago in these queues, has not started, and may be in nobody's hands.

    ``empty`` are those queues in which the broker has nothing ready.
    """
    return [
        _hint(row) for row in await transaction.fetch(_UNSTARTED, older_than_seconds, limit, list(queues), list(empty))
    ]
