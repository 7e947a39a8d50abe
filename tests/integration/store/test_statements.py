"""Every named statement is correct SQL, is used, and means what its function thinks, directly and through PgBouncer."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import bobrai
from bobrai.domain import task
from bobrai.domain.access import Allowance, Grant
from bobrai.domain.audit import Author
from bobrai.domain.errors import KeyNameTaken, RotationTooSoon
from bobrai.domain.limiting import Limits, PerKey
from bobrai.domain.message import Hint
from bobrai.domain.task import IdempotencyKey, OutcomeKind
from bobrai.domain.unique import Unique
from bobrai.store import (
    admissions,
    attempts,
    audit,
    backlogs,
    children,
    keys,
    outbox,
    queries,
    queues,
    replicas,
    submission,
    task_types,
    tasks,
    unique,
    workers,
)
from bobrai.store.admissions import Bound, Bucket
from bobrai.store.audit import AuditFilter
from bobrai.store.children import Parent
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from bobrai.store.purging import Purge
from bobrai.store.queues import Wishes
from bobrai.store.tasks import TaskFilter
from bobrai.telemetry.logs import captured
from tests.integration.store.alike import alike
from tests.integration.store.builders import blocked, claimed, expired, new_task, outcome, relayed, submitted, worker
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

STATEMENTS = queries.load()
SOURCES = "\n".join(
    path.read_text() for path in sorted(Path(bobrai.__file__).parent.rglob("*.py")) if path.parent.name != "sql"
)


async def test_every_statement_prepares(database: OwnDatabase) -> None:
    async with database.connect() as connection:
        for name, text in STATEMENTS.items():
            prepared = await connection.prepare(text)
            highest = max((int(number) for number in re.findall(r"\$(\d+)", text)), default=0)
            assert len(prepared.get_parameters()) == highest, f"{name}: numbers are missing among the parameters"
            columns = [attribute.name for attribute in prepared.get_attributes()]
            assert len(set(columns)) == len(columns), f"{name}: two columns have one name"


def test_every_statement_is_used_once() -> None:
    used = re.findall(r'statement\(\s*"([a-z_]+)"\s*\)', SOURCES)
    assert sorted(used) == sorted(STATEMENTS)


def test_every_statement_says_its_name_first() -> None:
    assert {name for name, text in STATEMENTS.items() if not text.startswith(f"/* {name} */")} == set()


def test_two_statements_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_statements", lambda: iter([("twice", "SELECT 1"), ("twice", "SELECT 2")]))
    with pytest.raises(ValueError, match="twice"):
        queries.load()


class _Recording:
    """Notes which statements a connection runs."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def wrap(self, fetch: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def recording(query: str, *args: Any, **options: Any) -> Any:
            if found := re.match(r"/\* ([a-z_]+) \*/", query):
                self.seen.add(found[1])
            return await fetch(query, *args, **options)

        return recording


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all statements that ran."""
    from asyncpg import Connection

    recording = _Recording()
    original = Connection.fetch

    async def fetch(self: Connection, query: str, *args: Any, **options: Any) -> Any:
        return await recording.wrap(lambda *a, **o: original(self, *a, **o))(query, *args, **options)

    monkeypatch.setattr(Connection, "fetch", fetch)
    return recording.seen


async def test_every_function_of_the_store_runs_its_statements(either_way: Database, seen: set[str]) -> None:
    """Three times over, so that statements prepared on one connection meet other connections of the pooler."""
    for turn in range(3):
        await _everything(either_way, turn)
    assert seen == set(STATEMENTS)


async def _everything(store: Database, turn: int) -> None:
    queue = f"q{turn}"
    await queues.ensure(store, [queue])
    assert await queues.change(store, queue, Wishes(paused=False, max_backlog=5), by=SOMEBODY)
    assert await queues.put(store, f"kept{turn}", Wishes(paused=True), by=SOMEBODY) is True
    assert queue in await queues.running(store)
    assert (await queues.live(store))[f"kept{turn}"] is True
    rule = Unique(key="/order", for_seconds=3600.0, while_="waiting", on_conflict="replace")
    await task_types.announce(store, [task.TaskType(name=f"type{turn}", unique=rule)])
    assert {kind.name: kind.unique for kind in await task_types.every(store)}[f"type{turn}"] == rule
    await task_types.touch(store)
    assert await task_types.forget(store, retention_seconds=600.0) == []

    me = await worker(store, queues=(queue,))
    await workers.report_speeds(store, me, {queue: 12.5})
    (living,) = [each for each in await workers.live(store) if each.id == me]
    assert living.speeds == {queue: 12.5}

    ids = await submitted(store, 6, queue=queue)
    key = IdempotencyKey(key=f"k{turn}", fingerprint=b"f", ttl_seconds=60.0)
    (keyed, _), replayed = await submission.submit_keyed(store, [new_task(queue=queue)], key)
    assert (await submission.submit_keyed(store, [new_task(queue=queue)], key)) == ((keyed, []), True)
    assert not replayed

    assert await outbox.due_waits(store, queue)
    assert (await outbox.next_due(store) or 0.0) <= 0.0
    async with store.repeatable() as transaction:
        due = await outbox.take_due(transaction, {queue: 100}, 100)
        await outbox.return_hints(transaction, due[:1])
    assert [hint.task_id for hint in due] == [*ids, *keyed]
    assert await outbox.release_hints(store, [Hint(ids[1], 0)]) == 1
    assert await outbox.unheld(store, queue, -1.0, 100) == {Hint(each, 0) for each in (*ids[2:], *keyed)}
    assert await outbox.sweep(store, {Hint(ids[2], 0)}) == 1

    claims = [await claimed(store, me, each) for each in ids[:4]]
    await attempts.show_progress(store, me, [(claims[0].task_id, 1, '{"at": 1}')])
    held = await attempts.claimed(store, me, [Hint(ids[0], 0), Hint(ids[5], 0)])
    assert [claim.task_id for claim in held] == [ids[0]]
    done, retry = outcome(claims[0], OutcomeKind.DONE), outcome(claims[1], OutcomeKind.RETRY)
    assert await attempts.complete(store, me, [done]) == {ids[0]}
    assert await attempts.settled(store, me, [done]) == {ids[0]: "done"}
    assert await attempts.end(store, me, [retry]) == {ids[1]: "pending"}
    assert await attempts.orphans(store, me, ids[:3]) == {(ids[3], 1)}
    assert await workers.heartbeat(store, me, lease_seconds=60.0, running=1) == []

    await _keys(store, f"key{turn}")
    await _unique(store, turn)
    await _children(store, f"parents{turn}")
    replica = await replicas.register(store, lease_seconds=60.0)
    assert await replicas.renew(store, replica, lease_seconds=60.0)
    assert await replicas.count(store) == 1
    await replicas.forget(store, replica)
    assert await tasks.waiting_of(store, {"nobody": 5}) == {"nobody": 0}

    await tasks.cancel(store, ids[4], by=SOMEBODY)
    await tasks.replay(store, ids[4], by=SOMEBODY)
    assert await tasks.final_of(store, ids) == {ids[0]}
    assert (await tasks.get(store, ids[0]))["progress"] == '{"at": 1}'
    assert (await tasks.explain(store, ids[5], most_ahead=10))["due_for_seconds"] >= 0.0
    assert (await tasks.read(store, [ids[0], 10**9]))[ids[0]]["status"] == "done"
    listed = await tasks.page(store, TaskFilter(queue=queue), before_id=None, limit=3)
    assert [row["id"] for row in listed] == [keyed[0], ids[5], ids[4]]
    late = [(await submitted(store, queue=queue, **{each: 0.0}))[0] for each in ("deadline_seconds", "expires_seconds")]
    assert await tasks.overdue(store, limit=10) == late
    ended = {row["id"]: row["status"] for row in await tasks.end_overdue(store, late)}
    assert ended == dict(zip(late, ("failed", "cancelled"), strict=True))

    await expired(store, me)
    assert set(await workers.lost_tasks(store, [])) == set(ids[2:4])
    assert {row["id"] for row in await workers.take_back(store)} == set(ids[2:4])
    await workers.unregister(store, await worker(store))
    measured = await queues.measure(
        store,
        {queue: 7},
        period_seconds=0.0,
        takeover_periods=60.0,
        waiting_period_seconds=0.0,
        next_period=lambda _seconds: 2.5,
    )
    assert {row["measured_every"] for row in await store.fetch("SELECT measured_every FROM queues")} == {2.5}
    assert queue in {row["name"] for row in measured.rows}
    assert {row["name"]: row["depth"] for row in await queues.every(store)}[queue] == 7
    assert await tasks.prune(store, retention_seconds=-1.0, limit=10) == 3
    await store.fetch("UPDATE idempotency_keys SET expires_at = now()")
    assert await tasks.prune_idempotency_keys(store, limit=10) == 1
    assert await outbox.origins(store, ids) == []
    assert queue in {each.queue for each in await backlogs.every(store)}
    assert await relayed(store, queue=queue)
    await _removals(store, queue, f"kept{turn}")
    await _limits(store, f"limited{turn}", f"type{turn}")


async def _keys(store: Database, key_id: str) -> None:
    grant, allowance = Grant.of(["tasks:read"], queues=["mail*"]), Allowance.of(rate="5/s", burst=9, max_waiting=7)
    bounds: dict[str, Any] = {"grant": grant, "allowance": allowance}
    life = {"expires_at": None, "expires_seconds": 60.0}
    await keys.create(store, key_id, name=key_id, secret_hash=bytes(32), **bounds, **life, by=SOMEBODY)
    with pytest.raises(KeyNameTaken):
        await keys.create(store, f"{key_id}b", name=key_id, secret_hash=bytes(32), **bounds, **life, by=SOMEBODY)
    assert await keys.rotate(store, key_id, secret_hash=bytes(range(32)), grace_seconds=600.0, by=SOMEBODY)
    with pytest.raises(RotationTooSoon):
        await keys.rotate(store, key_id, secret_hash=bytes(range(32)), grace_seconds=600.0, by=SOMEBODY)
    await keys.touch(store, [key_id])
    (known,) = [row for row in await keys.known(store) if row["id"] == key_id]
    assert (known["secret_hash"], known["previous_hash"]) == (bytes(range(32)), bytes(32))
    assert await keys.revoke(store, key_id, by=SOMEBODY)
    shown = await keys.get(store, key_id)
    assert shown is not None
    assert shown["last_used_at"] is not None
    said = {"name": f"{key_id}c", "by": Author("declared", ""), "grace_seconds": 60.0, **bounds}
    for declared, secret in ((f"{key_id}c", b"1"), (f"{key_id}c", b"2"), (f"{key_id}d", b"2")):
        assert await keys.declare(store, declared, secret_hash=secret * 32, **said) == ""
    assert await keys.prune(store, retention_seconds=600.0) == 0
    assert key_id in {row["id"] for row in await keys.every(store)}


async def _unique(store: Database, turn: int) -> None:
    patient = PatientDatabase(store, 5.0)
    queue = f"unique{turn}"
    key = IdempotencyKey(key=queue, fingerprint=b"f", ttl_seconds=0.0)
    made, _ = await unique.submit_keyed(patient, [alike(turn, queue=queue)], key)
    async with store.transaction() as other:
        await other.fetch("SELECT FROM tasks WHERE id = $1 FOR UPDATE", made.ids[0])
        replacing = asyncio.create_task(unique.submit(patient, [[alike(turn, queue=queue, replace=True)]]))
        await eventually(lambda: blocked(store))
    assert await replacing == [(made.ids, [0])]
    await tasks.cancel(store, made.ids[0], by=SOMEBODY)
    await store.fetch("UPDATE unique_tasks SET check_at = now()")
    assert await unique.prune(store, limit=10) == 1
    await store.fetch("UPDATE tasks SET finished_at = now() + interval '1 h' WHERE id = $1", made.ids[0])
    await store.fetch("DELETE FROM idempotency_keys WHERE key = $1", queue)
    await patient.close()


async def _children(store: Database, queue: str) -> None:
    me = await worker(store, queues=(queue,))
    (parent_id,) = await submitted(store, queue=queue)
    parent = Parent(outcome(await claimed(store, me, parent_id), OutcomeKind.DONE), [new_task(queue=queue)] * 2)
    assert await children.complete(store, me, [parent]) == {parent_id: ()}
    assert len(await tasks.page(store, TaskFilter(parent_id=parent_id), before_id=None, limit=3)) == 2
    await workers.unregister(store, me)
    for table in ("outbox", "tasks", "queues"):  # what comes next counts what is there
        await store.fetch(f"DELETE FROM {table} WHERE {'name' if table == 'queues' else 'queue'} = $1", queue)


async def _limits(store: Database, queue: str, type_: str) -> None:
    wish = Limits(concurrency=2, rate="100/s", per_key=PerKey("/account", weights={"acme": 3}))
    assert await queues.put(store, queue, Wishes(limits=wish), by=SOMEBODY)
    assert await task_types.set_limits(store, type_, wish, by=SOMEBODY)
    limited = await admissions.limited(store)
    assert (limited.queues[queue], limited.types[type_]) == (wish, wish)
    assert queue in (await admissions.names(store)).queues
    assert await task_types.set_limits(store, type_, None, by=SOMEBODY)
    assert type_ not in (await admissions.names(store)).types
    ids = await submitted(store, 4, queue=queue)
    async with store.repeatable() as transaction:
        due = await outbox.take_due(transaction, {queue: 100}, 100)
        assert await admissions.hold(transaction, due) == set(ids)
    assert await admissions.sort_due(store, [queue], limit=10) == 0
    assert await admissions.are_awaited(store, [queue], [])
    assert not await admissions.are_awaited(store, [], [queue])
    bound = Bound("queue", queue, "")
    async with store.repeatable(admissions.BOUNDED) as transaction:
        assert await admissions.lock(transaction)
        await admissions.count_anew(transaction)
        assert sum(each.admitted for each in await admissions.settled(transaction)) == 0
        (lane,) = await admissions.lanes(transaction, {queue: b""}, most=10, room=10)
        assert (lane.keys.queue, lane.waiting, lane.is_old) == (queue, 4, False)
        assert await admissions.buckets(transaction, [bound]) == {}
        admitted = await admissions.admit(transaction, [(lane, 3)])
        assert {each.hint.task_id for each in admitted} == set(ids[:3])
        await admissions.fill(transaction, {bound: (Bucket(97.0, 3), 0.0)})
        assert (await admissions.buckets(transaction, [bound]))[bound][:2] == (97.0, 3)
    me = await worker(store, queues=(queue,))
    hints = [Hint(ids[0], 0), Hint(ids[3], 0)]
    (done,) = await attempts.claim(store, me, hints, may_be_limited=True)
    assert await attempts.complete(store, me, [outcome(done, OutcomeKind.DONE)]) == {ids[0]}
    await admissions.confirm(store, ids[1:2])
    await outbox.wake(store)
    async with store.repeatable(admissions.BOUNDED) as transaction:
        again = await admissions.unstarted(transaction, [queue], [], older_than_seconds=-1.0, limit=10)
        assert [hint.task_id for hint in again] == [ids[2]]
        (passed,) = [each for each in await admissions.settled(transaction) if each.keys.queue == queue]
        assert (passed.admitted, passed.waiting) == (2, 2)
    assert passed in await admissions.passed(store)
    assert [(each.tasks, each.keys.queue) for each in await admissions.waiting(store, most=10, timeout=30.0)] == [
        (1, queue)
    ]
    async with store.repeatable(admissions.BOUNDED) as transaction:
        assert await admissions.lock(transaction)
        assert await admissions.dissolve(transaction, lane, limit=10) == 1
    assert await admissions.prune_buckets(store, limit=10) == 1
    await Purge(store, queue, by=SOMEBODY).cancel_waiting(limit=10)
    assert await tasks.prune(store, retention_seconds=-1.0, limit=10) == 4


async def _removals(store: Database, queue: str, kept: str) -> None:
    await queues.touch(store, [queue])
    assert await queues.remove_idle(store, retention_seconds=600.0) == []
    purge = Purge(store, queue, by=SOMEBODY)
    assert sum((await purge.cancel_waiting(limit=100)).values()) > 0
    assert await purge.ask_running(limit=100) == 0
    await tasks.prune(store, retention_seconds=-1.0, limit=100)
    assert await queues.remove(store, kept, by=SOMEBODY) == (True, False, 0, 0)
    newest = await audit.page(store, AuditFilter(actor=SOMEBODY.actor), before_id=None, limit=2)
    assert [row["action"] for row in newest] == ["queue.remove", "queue.purge"]
    assert await audit.prune(store, retention_seconds=600.0, limit=10) == 0
    assert await queues.restore(store) == []
    async with store.transaction() as transaction:
        assert await queues.removed(transaction, grace_seconds=-1.0, besides=[]) == kept
        await queues.forget(transaction, kept)


async def test_a_type_that_cannot_be_read_is_in_nobodys_way(store: Database) -> None:
    await task_types.announce(store, [task.TaskType(name="good"), task.TaskType(name="bad")])
    await store.fetch("""UPDATE task_types SET retry = '{"max_attempts": 2.5}' WHERE name = 'bad'""")
    with captured() as lines:
        for _ in range(2):
            assert {kind.name for kind in await task_types.every(store)} == {"good"}
    assert [(line["event"], line["type"]) for line in lines] == [("types.unreadable", "bad")]
