"""The hot statements stay cheap when the tables are full: no table is read from end to end, and few pages are touched.

Each is planned both ways that PostgreSQL may choose after five runs: for its values, and once for all values.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from bobrai.store import queries
from tests.integration.store.plans import plan
from tests.support.databases import Database as OwnDatabase
from tests.support.servers import Servers

pytestmark = pytest.mark.xdist_group("plans")  # one process makes what all of them look at

DONE, DELAYED, DUE, PROCESSING, WORKERS = 60_000, 30_000, 5_000, 10_000, 20
CHANGES = 60_000  # in the audit
GONE = 1  # of the workers: its 500 tasks have no owner

# The payloads of what is done fill its pages to the brim, so that what waits lies together in pages of its own.
FILL = f"""
INSERT INTO queues (name) SELECT 'queue' || n FROM generate_series(1, 9) AS n;
INSERT INTO workers (queues, host, concurrency, expires_at)
    SELECT '{{default}}', 'host', 500, now() + interval '1 h' FROM generate_series(1, {WORKERS});
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, status, attempt, worker_id, started_at,
                   finished_at, result, run_at, created_at, priority)
    SELECT 'type' || n % 7, CASE WHEN n % 10 = 0 THEN 'default' ELSE 'queue' || n % 10 END, '"{"x" * 52}"', 3, '{{}}',
           300, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'done' END, 1, n % {WORKERS} + 1, now(),
           now() - make_interval(mins => {DONE} - n), '"ok"', now(), now() - make_interval(mins => {DONE} - n), n % 11
    FROM generate_series(1, {DONE}) AS n;
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, priority, run_at)
    SELECT 'echo', 'default', '1', 3, '{{}}', 300, n % 11, now() + make_interval(hours => 1, secs => n)
    FROM generate_series(1, {DELAYED}) AS n;
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, priority, deadline_at, expires_at,
                   client_id, parent_id)
    SELECT 'echo', CASE WHEN n % 2 = 0 THEN 'default' ELSE 'queue3' END, '1', 3, '{{}}', 300, n % 11,
           CASE WHEN n > 200 AND n % 4 = 1 THEN now() END, CASE WHEN n > 200 AND n % 4 = 3 THEN now() END,
           CASE WHEN n % 2 = 0 THEN '' ELSE 'key:a' END, CASE WHEN n % 5 = 0 THEN 500 END
    FROM generate_series(1, {DUE}) AS n;
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, run_at FROM tasks WHERE status = 'pending';
INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, status, attempt, worker_id, started_at)
    SELECT 'echo', 'default', '1', 3, '{{}}', 300, 'processing', 1, n % {WORKERS} + 1, now()
    FROM generate_series(1, {PROCESSING}) AS n;
DELETE FROM workers WHERE id = {GONE};
INSERT INTO api_keys (id, name, secret_hash, scopes, created_by)
    SELECT 'key' || n, 'key ' || n, sha256(n::text::bytea), '{{tasks:read}}', '' FROM generate_series(1, 1000) AS n;
INSERT INTO audit (at, actor, actor_name, action, target, source, request_id, before, after)
    SELECT now() - make_interval(mins => {CHANGES} - n), 'key:' || n % 50, 'name',
           CASE WHEN n % 100 = 0 THEN 'key.create' ELSE 'task.cancel' END, 'task:' || n, '10.0.0.1', 'r',
           '{{"status": "pending"}}', '{{"status": "cancelled"}}'
    FROM generate_series(1, {CHANGES}) AS n;
INSERT INTO idempotency_keys SELECT '', 'key' || n, 'x', '{{1}}', now() + make_interval(secs => n - 1000)
    FROM generate_series(1, 20000) AS n;
INSERT INTO unique_tasks SELECT sha256(id::text::bytea), id, 'unfinished', NULL,
           now() + make_interval(secs => CASE WHEN id % 30 = 0 THEN -1 ELSE 3600 END)
    FROM tasks WHERE id % 2 = 0;
"""

FIRST_DELAYED = DONE + 1
FIRST_DUE = DONE + DELAYED + 1
FIRST_PROCESSING = DONE + DELAYED + DUE + 1
MINE = 7  # a living worker
AUTHOR = ["key:a", "a", "10.0.0.1", "r"]
NOW = datetime.now(UTC)


def hashes_of(task_ids: list[int]) -> list[str]:
    """Return the hashes of tasks of which there is one at a time, as SQL text, those of their ids."""
    return ["\\x" + hashlib.sha256(str(task_id).encode()).hexdigest() for task_id in task_ids]


hundred_due = list(range(FIRST_DUE, FIRST_DUE + 100))
hundred_even = list(range(FIRST_DUE + 1, FIRST_DUE + 201, 2))
hundred_mine = list(range(FIRST_PROCESSING + MINE - 2, FIRST_PROCESSING + MINE - 2 + 100 * WORKERS, WORKERS))
hundred_done = list(range(MINE - 1, MINE - 1 + 100 * WORKERS, WORKERS))
hundred = [*range(100)]
submission = [
    ["echo"] * 100, ["default"] * 100, [0] * 100, ["1"] * 100, [3] * 100, ["{}"] * 100, [300.0] * 100, [0.0] * 100,
    [None] * 100, [""] * 100, [""] * 100, ["key:a"] * 100, [None] * 100, [None] * 100, [None] * 100, [None] * 100,
]  # fmt: skip

# name, arguments, pages of 8 kB that it may touch: twice what it touches now, for 100 rows where it takes many
HOT: list[tuple[str, list[Any], int]] = [
    ("submit", submission, 3000),
    ("submit_keyed", [*submission, "me", "new", "\\x00", 60.0], 3000),
    ("idempotency_lookup", ["", "key5000"], 10),
    ("note_tasks", ["", "key5000", [1, 2], [1]], 40),
    ("take_hashes", [hashes_of(hundred_even), ["unfinished"] * 100, [60.0] * 100], 1500),
    ("take_hashes", [hashes_of([10**9 + n for n in hundred]), ["unfinished"] * 100, [60.0] * 100], 2000),
    ("lock_replaced", [hashes_of(hundred_even)], 1100),
    ("lock_hints", [hundred_due], 1200),
    ("holders", [hashes_of(hundred_even)], 1150),
    (
        "submit_unique",
        [*submission, [None] * 100, hashes_of(hundred_even), ["unfinished"] * 100, [60.0] * 100, None, 500],
        6000,
    ),
    ("replace_waiting", [hundred_due, *(submission[n] for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15))], 9000),
    ("await_task", [500], 20),
    ("prune_unique", [100], 3000),
    ("claim", [MINE, hundred_due, [0] * 100], 4500),
    ("claimed", [MINE, hundred_mine, [0] * 100], 600),
    ("complete", [MINE, hundred_mine, [1] * 100, ['"ok"'] * 100, [None] * 100], 2500),
    (
        "complete_parents",
        [MINE, hundred_mine, [1] * 100, ['"ok"'] * 100, [None] * 100, *submission, hundred_mine],
        18_000,
    ),
    (
        "end_attempts",
        [MINE, hundred_mine, [1] * 100, ["retry"] * 100, ['{"a": 1}'] * 100, [5.0] * 100, [None] * 100, 20],
        6000,
    ),
    ("settled", [MINE, hundred_done, [1] * 100, ["done"] * 100], 1000),
    ("orphans", [MINE, hundred_mine], 1000),
    ("progress", [MINE, hundred_mine, [1] * 100, ["1"] * 100], 2500),
    ("heartbeat", [MINE, 60.0, 500], 1000),
    ("take_due", [["default", "queue3"], [100, 100], 150], 2000),
    ("next_due", [], 800),
    ("due_waits", ["default"], 20),
    ("return_hints", [[10**9 + n for n in hundred], [0] * 100, ["default"] * 100, [0] * 100, [NOW] * 100], 2000),
    ("release_hints", [hundred_due, [0] * 100], 1200),
    ("sweep", [hundred_due, [0] * 100], 1600),
    ("lost_workers", [], 1700),
    ("lost_tasks", [[GONE], 100, []], 1700),
    ("take_back", [[GONE], 100, 20, 1000, None], 5000),
    ("take_back", [[GONE], 100, 20, 1000, [FIRST_PROCESSING + WORKERS - 1]], 5000),
    ("overdue", [100], 20),
    ("end_overdue", [list(range(FIRST_DUE + 200, FIRST_DUE + 220, 2)), 20], 400),
    ("task_by_id", [500], 6),
    ("explain_task", [FIRST_DUE + 250, 10_000], 660),
    ("read_tasks", [hundred_due], 600),
    ("tasks_by_ids", [hundred_done], 300),
    ("waiting_of", [["key:a"], [100]], 250),
    ("known_keys", [], 60),
    ("list_keys", [None], 60),
    ("touch_keys", [["key7", "key8"]], 120),
    ("cancel", [FIRST_DUE + 7, *AUTHOR], 500),
    ("replay", [500, *AUTHOR], 700),
    ("prune_tasks", [86_400.0, 100], 900),
    ("prune_idempotency_keys", [100], 1100),
    ("cancel_waiting", ["queue3", 2], 150),
    ("cancel_running", ["default", 100], 3000),
    ("restore_queues", [], 1000),
    ("prune_audit", [86_400.0, 100], 900),
    ("record_purge", [None, 3, 0, *AUTHOR, "queue3"], 140),
    ("record_purge", [500, 3, 0, *AUTHOR, "queue3"], 140),
    ("put_queue", ["queue3", True, False, None, True, None, *AUTHOR, 200], 550),
    ("set_queue", ["queue3", True, False, None, True, None, *AUTHOR], 550),
]

# Counting touches what is counted, but nothing of the 60,000 tasks that are done.
COUNTING: list[tuple[str, list[Any], int]] = [
    ("lock_held", [hundred_due], 800),
    ("measure_due", [["default", "queue3", "queue4"], [1, None, 0], 1.0, [7, 0, 0], [None] * 3], 2000),
    ("measure_waiting", [["default", "queue3", "queue4"]], 2000),
    ("unheld", ["default", -1.0, 10_000], 13_000),
    ("remove_queue", ["queue4", *AUTHOR], 1000),
    ("remove_idle_queues", [-1.0], 2000),
    ("removed_queue", [-1.0, []], 100),
]

# before_id, status, type, queue, created_after, created_before, queues, types (patterns), client_id, parent_id, limit
PAGES: list[tuple[str, list[Any], int]] = [
    ("the newest", [None, None, None, None, None, None, None, None, None, None, 100], 20),
    ("in the middle", [30_000, None, None, None, None, None, None, None, None, None, 100], 20),
    ("failed ones", [None, "failed", None, None, None, None, None, None, None, None, 100], 220),
    (
        "cancelled ones, of which there are none",
        [None, "cancelled", None, None, None, None, None, None, None, None, 100],
        12,
    ),
    ("inside of a narrowed grant", [None, None, None, None, None, None, ["queue5%"], ["type%"], None, None, 100], 2200),
    ("pending ones", [None, "pending", None, None, None, None, None, None, None, None, 100], 1500),
    ("processing ones", [None, "processing", None, None, None, None, None, None, None, None, 100], 30),
    ("of a frequent type", [None, None, "type3", None, None, None, None, None, None, None, 100], 2200),
    ("of a queue", [None, None, None, "queue5", None, None, None, None, None, None, 100], 2200),
    ("of a parent", [None, None, None, None, None, None, None, None, None, 500, 100], 110),
    (
        "of a narrow time",
        [None] * 4 + [NOW - timedelta(days=20, hours=2), NOW - timedelta(days=20), None, None, None, None, 100],
        700,
    ),
]

# before_id, actor, action, target, after, before, limit
CHANGES_LISTED: list[tuple[str, list[Any], int]] = [
    ("the newest", [None, None, None, None, None, None, 100], 20),
    ("in the middle", [30_000, None, None, None, None, None, 100], 20),
    ("of an actor", [None, "key:7", None, None, None, None, 100], 220),
    ("of an action", [30_000, None, "key.create", None, None, None, 100], 220),
    ("of a target", [None, None, None, "task:77", None, None, 100], 12),
    ("of nobody", [None, "key:nobody", None, None, None, None, 100], 12),
    (
        "of a narrow time",
        [None, None, None, None, NOW - timedelta(days=20, hours=2), NOW - timedelta(days=20), 100],
        220,
    ),
]


@pytest.fixture(scope="module")
def full(servers: Servers) -> Iterator[OwnDatabase]:
    """A database with a hundred thousand tasks in every state."""
    database = servers.databases().create()
    asyncio.run(_fill(database))
    yield database
    servers.databases().drop(database)


async def _fill(database: OwnDatabase) -> None:
    await database.execute(FILL)
    await database.execute("VACUUM ANALYZE")


async def _check(connection: asyncpg.Connection, name: str, arguments: list[Any], pages: int, mode: str) -> None:
    found = await plan(connection, queries.statement(name), arguments, mode)
    assert found.scanned_whole({"tasks", "outbox", "idempotency_keys", "audit", "unique_tasks"}) == [], (
        f"{mode}\n{found}"
    )
    assert found.buffers <= pages, f"{mode}: {found.buffers} pages\n{found}"


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(("name", "arguments", "pages"), [*HOT, *COUNTING], ids=[case[0] for case in [*HOT, *COUNTING]])
async def test_a_full_table_costs_nothing(
    full: OwnDatabase, name: str, arguments: list[Any], pages: int, mode: str
) -> None:
    async with full.connect() as connection:
        await _check(connection, name, arguments, pages, mode)


@pytest.mark.parametrize(("case", "arguments", "pages"), PAGES, ids=[case[0] for case in PAGES])
async def test_a_page_of_a_full_table_costs_little(
    full: OwnDatabase, case: str, arguments: list[Any], pages: int
) -> None:
    async with full.connect() as connection:
        await _check(connection, "list_tasks", arguments, pages, "force_custom_plan")


@pytest.mark.parametrize(("case", "arguments", "pages"), CHANGES_LISTED, ids=[case[0] for case in CHANGES_LISTED])
async def test_a_page_of_a_full_audit_costs_little(
    full: OwnDatabase, case: str, arguments: list[Any], pages: int
) -> None:
    async with full.connect() as connection:
        await _check(connection, "list_audit", arguments, pages, "force_custom_plan")


async def test_the_guarded_statements_find_what_they_look_for(full: OwnDatabase) -> None:
    """A plan over no rows would prove nothing."""
    async with full.connect() as connection:
        for name, arguments, _ in HOT:
            found = await plan(connection, queries.statement(name), arguments, "auto")
            of_many = any(rows in arguments for rows in (hundred_due, hundred_mine, hundred_done))
            assert found.rows_found() >= (95 if of_many else 1), name


async def test_the_guard_notices_a_missing_index(full: OwnDatabase) -> None:
    async with full.connect() as connection:
        await connection.execute("BEGIN; DROP INDEX outbox_due")
        try:
            statement = "SELECT task_id FROM outbox WHERE queue = $1 AND priority = 3 ORDER BY due_at LIMIT 10"
            await connection.execute(f"PREPARE planned AS {statement}")
            (row,) = await connection.fetch("EXPLAIN (FORMAT JSON) EXECUTE planned('default')")
            assert "Seq Scan" in row[0]
        finally:
            await connection.execute("ROLLBACK; DEALLOCATE ALL")
