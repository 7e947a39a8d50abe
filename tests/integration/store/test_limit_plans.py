"""What a decision about limits costs is what it looks at, not what waits: a key with 100,000 tasks slows no other.

The statements run as they do in the dispatcher, whose transaction has no use for sequential scans.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from bobrai.store import queries
from tests.integration.store.plans import plan
from tests.support.databases import Database as OwnDatabase
from tests.support.servers import Servers

ONE_KEY, OTHER_KEYS, LATE, RUNNING, DONE = 100_000, 200, 20_000, 300, 20_000

pytestmark = pytest.mark.xdist_group("limit_plans")  # one process makes what all of them look at

FILL = f"""
UPDATE queues SET limits = '{{"per_key": {{"key": "/a", "concurrency": 3}}}}';
INSERT INTO workers (queues, host, concurrency, expires_at) VALUES ('{{default}}', 'host', 500, now() + interval '1 h');
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, status, attempt, worker_id, started_at,
                   finished_at)
    SELECT 'echo', 'default', '{{"a": "done"}}', 3, '{{}}', 300, 'done', 1, 1, now(), now()
    FROM generate_series(1, {DONE});
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, priority)
    SELECT 'echo', 'default', json_build_object('a', CASE WHEN n <= {ONE_KEY} THEN 'one' ELSE 'key' || n END), 3,
           '{{}}', 300, n % 11
    FROM generate_series(1, {ONE_KEY + OTHER_KEYS}) AS n;
INSERT INTO held (task_id, attempt, queue, lane, type, queue_key, type_key, rules, priority, due_at)
    SELECT t.id, t.attempt, t.queue, l.lane, t.type, l.queue_key, l.type_key, l.rules, t.priority, t.run_at
    FROM tasks AS t JOIN queues AS q ON q.name = t.queue
    CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, NULL) AS l WHERE t.status = 'pending';
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, run_at)
    SELECT 'echo', 'default', '{{"a": "late"}}', 3, '{{}}', 300, now() + make_interval(mins => n - 1000)
    FROM generate_series(1, {LATE}) AS n;
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, run_at FROM tasks WHERE payload ->> 'a' = 'late';
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, status, attempt, worker_id, started_at)
    SELECT 'echo', 'default', json_build_object('a', 'key' || n), 3, '{{}}', 300, 'processing', 1, 1, now()
    FROM generate_series(1, {RUNNING}) AS n;
INSERT INTO admissions (task_id, attempt, queue, type, queue_key, type_key, rules, priority, due_at, confirmed)
    SELECT t.id, 0, t.queue, t.type, l.queue_key, l.type_key, l.rules, t.priority, t.run_at, true
    FROM tasks AS t JOIN queues AS q ON q.name = t.queue
    CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, NULL) AS l WHERE t.status = 'processing';
INSERT INTO rate_buckets SELECT 'queue_key', 'default', 'key' || n, 1, 0, now(), now() + make_interval(secs => n - 1000)
    FROM generate_series(1, 20000) AS n;
"""
FIRST_WAITING = DONE + 1
FIRST_RUNNING = DONE + ONE_KEY + OTHER_KEYS + LATE + 1
FEW = list(range(FIRST_RUNNING, FIRST_RUNNING + 10))
KEYS = [f"key{n}" for n in range(10)]

# name, arguments, pages of 8 kB that it may touch: about twice what it touches now
HOT: list[tuple[str, list[Any], int]] = [
    ("limited", [], 40),
    ("limited_names", [], 20),
    ("admitted", [], 4200),
    ("lock_over", [FEW], 120),
    ("drop_over", [FEW], 120),
    ("lanes", [["default"], ["\\x00"], 500, 500], 3500),
    ("buckets", [["queue_key"] * 10, ["default"] * 10, KEYS], 80),
    ("fill_buckets", [["queue_key"] * 10, ["default"] * 10, KEYS, [1.0] * 10, [0] * 10, [1.0] * 10], 250),
    ("prune_buckets", [100], 900),
    ("confirm_admissions", [FEW], 120),
    ("unstarted", [-1.0, 100, ["default"], ["default"]], 3000),
    ("adopt", [], 5000),
    ("recount", [], 5000),
    ("are_awaited", [["other"], ["other"]], 60),
    ("are_awaited", [["default"], ["default"]], 60),
    ("sort_due", [["default"], 100], 9000),
]


@pytest.fixture(scope="module")
def full(servers: Servers) -> Iterator[OwnDatabase]:
    """A database in which 100,000 tasks of one key wait, and some of others."""
    database = servers.databases().create()
    asyncio.run(_fill(database))
    yield database
    servers.databases().drop(database)


async def _fill(database: OwnDatabase) -> None:
    await database.execute(FILL)
    await database.execute("VACUUM ANALYZE")


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(("name", "arguments", "pages"), HOT, ids=[case[0] for case in HOT])
async def test_a_decision_touches_few_pages(
    full: OwnDatabase, name: str, arguments: list[Any], pages: int, mode: str
) -> None:
    async with full.connect() as connection:
        await connection.execute("SET enable_seqscan = off")
        found = await plan(connection, queries.statement(name), arguments, mode)
    assert found.scanned_whole({"tasks", "held", "outbox", "rate_buckets"}) == [], f"{mode}\n{found}"
    assert found.buffers <= pages, f"{mode}: {found.buffers} pages\n{found}"


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_letting_a_few_through_costs_the_same_however_much_waits_behind_them(
    full: OwnDatabase, mode: str
) -> None:
    async with full.connect() as connection:
        await connection.execute("SET enable_seqscan = off")
        pages = []
        for key in ("one", f"key{ONE_KEY + 7}"):
            (lane,) = await connection.fetch("SELECT DISTINCT lane FROM held WHERE queue_key = $1", key)
            arguments = [["default"], ["\\x" + lane["lane"].hex()], [1]]
            pages.append((await plan(connection, queries.statement("admit"), arguments, mode)).buffers)
    assert max(pages) < 70, "the one with 100,000 behind it is not dearer"


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_claim_with_admissions_looks_for_no_more_than_its_hints(full: OwnDatabase, mode: str) -> None:
    hints = list(range(FIRST_WAITING, FIRST_WAITING + 10))
    async with full.connect() as connection:
        found = await plan(connection, queries.statement("claim_admitted"), [1, hints, [0] * 10], mode)
    assert found.scanned_whole({"tasks", "held"}) == [], str(found)
    assert found.buffers < 600, str(found)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_putting_hints_into_lanes_reads_their_tasks_alone(full: OwnDatabase, mode: str) -> None:
    ids = list(range(FIRST_WAITING, FIRST_WAITING + 100))
    arguments = [ids, [0] * 100, ["default"] * 100, [0] * 100, ["2030-01-01T00:00:00Z"] * 100]
    async with full.connect() as connection:
        found = await plan(connection, queries.statement("hold"), arguments, mode)
    assert found.scanned_whole({"tasks", "held"}) == [], str(found)
    assert found.buffers < 4000, str(found)
