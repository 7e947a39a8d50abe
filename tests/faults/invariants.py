"""What must be true after every case, whatever was broken: section 4 of the design, in the same words.

In: a service whose faults are over. Out: nothing, or an AssertionError that names the
tasks. A case says what it expects beyond the rule (`Expected`); what it does not say must not have happened.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bobrai.domain.task import FINAL, TRANSITIONS, TaskStatus
from tests.faults.handlers import CHILDREN
from tests.faults.service import DEAD_LETTERS, Service
from tests.support.eventually import NeverHappened, eventually

FINAL_SECONDS = 40.0
EMPTY_SECONDS = 15.0
ANY_TYPE = frozenset({"plain", "effect", "thread", "stubborn", "block", "batch"})
# A handler whose own transaction is cut off can only run again, in the next attempt: it has more than a case cuts off.
WITHOUT_TRANSACTION = ANY_TYPE - {"effect"}
CUTS_SURVIVED = 20
# drained, or killed by the test
ENDED_WELL = frozenset({0, -9})


@dataclass(frozen=True)
class Expected:
    """What a case expects beyond the rule: by default every task ends done, and no process failed."""

    failed: frozenset[int] = frozenset()
    """Tasks that end `failed`; all others end `done`."""
    dead_letters: int = 0
    exit_codes: frozenset[int] = ENDED_WELL
    logged_errors: frozenset[str] = frozenset()
    """Events of level error that belong to the case."""
    swept: bool = False
    """Whether messages were lost, so that the sweeper had to find their tasks; elsewhere it would hide a defect."""
    first_attempt_only: Collection[str] = ()
    """The types of which the fault may cost no task an attempt."""
    replays: Mapping[int, int] = field(default_factory=dict)


async def check(service: Service, expected: Expected | None = None) -> None:
    """Wait until the service has settled, and check every invariant."""
    expected = expected or Expected()
    await every_accepted_task_ends(service, expected)
    await every_task_ended_once(service, expected)
    await every_effect_happened_once(service)
    await every_parent_has_its_children(service)
    each_attempt_started_at_most_once(service, await service.tasks("id, attempt"))
    await nothing_is_left_over(service, expected)
    no_process_failed(service, expected)


async def every_accepted_task_ends(service: Service, expected: Expected) -> None:
    """Every accepted task is a row, every row was accepted, and all of them reach a final status."""
    load = service.load
    assert len(load.accepted) == len(set(load.accepted)), "an id was given to two submissions"

    async def all_final() -> bool:
        return await service.count("finished_at IS NULL") == 0

    try:
        await eventually(all_final, FINAL_SECONDS, message="every accepted task ends")
    except NeverHappened as error:
        still_open = await service.count("finished_at IS NULL")
        raise NeverHappened(f"{error}\n{still_open} tasks are open: {await describe_open(service)}") from error
    rows = await service.tasks("id, type, status, attempt, errors, parent_id")
    missing = set(load.accepted) - {row["id"] for row in rows}
    unknown = {row["id"] for row in rows if row["parent_id"] is None} - set(load.accepted)
    assert not missing, f"accepted, but no row: {sorted(missing)[:20]}"
    assert not unknown, f"rows that no client knows of: {sorted(unknown)[:20]}"
    wrong = {
        row["id"]: (row["status"], row["errors"])
        for row in rows
        if row["status"] != ("failed" if row["id"] in expected.failed else "done")
    }
    assert not wrong, f"{len(wrong)} tasks ended otherwise: {dict(list(wrong.items())[:5])}"
    if expected.first_attempt_only:
        retried = {
            row["id"]: (row["attempt"], row["errors"])
            for row in rows
            if row["attempt"] != 1 and row["type"] in expected.first_attempt_only
        }
        assert not retried, f"{len(retried)} tasks lost an attempt: {dict(list(retried.items())[:5])}"


async def describe_open(service: Service) -> list[dict[str, Any]]:
    """The first tasks that are not final, and what holds each: for the message of a failed check."""
    rows = await service.database.fetch(
        """SELECT t.id, t.status, t.attempt, t.max_attempts, t.type, now() - t.run_at AS due_for, t.worker_id,
                  w.id IS NOT NULL AS worker_lives, o.task_id IS NOT NULL AS in_outbox, o.attempt AS hint
           FROM tasks AS t LEFT JOIN workers AS w ON w.id = t.worker_id LEFT JOIN outbox AS o ON o.task_id = t.id
           WHERE t.finished_at IS NULL ORDER BY t.id LIMIT 5"""
    )
    starts = list(service.starts())
    return [row | {"started": [start[1:] for start in starts if start[0] == row["id"]]} for row in rows]


async def every_task_ended_once(service: Service, expected: Expected) -> None:
    """Each task's transitions form one allowed way from pending to one final status, claimed once per attempt."""
    ways = defaultdict(list)
    for row in await service.database.fetch("SELECT * FROM faults.transitions ORDER BY number"):
        ways[row["task_id"]].append(row)
    for task_id, way in ways.items():
        story = [(row["old_status"], row["new_status"], row["new_attempt"], row["worker_id"]) for row in way]
        born, *steps = way
        assert (born["old_status"], born["new_status"], born["new_attempt"]) == (None, "pending", 0), (task_id, story)
        before = born
        ends = 0
        for step in steps:
            old, new = TaskStatus(step["old_status"]), TaskStatus(step["new_status"])
            assert old == before["new_status"], f"task {task_id}: the audit has a gap: {story}"
            assert new in TRANSITIONS[old], f"task {task_id} went from {old} to {new}: {story}"
            assert _attempt_is_right(step), f"task {task_id} counted its attempts wrong: {story}"
            ends += new in FINAL
            before = step
        wanted = 1 + expected.replays.get(task_id, 0)
        assert ends == wanted, f"task {task_id} ended {ends} times: {story}"


def _attempt_is_right(step: Mapping[str, Any]) -> bool:
    """A claim counts one up; giving back counts one down; nothing else touches the number."""
    change = step["new_attempt"] - step["old_attempt"]
    if step["new_status"] == TaskStatus.PROCESSING:
        return bool(change == 1)
    if step["new_status"] == TaskStatus.PENDING and step["old_status"] == TaskStatus.PROCESSING:
        return change in {0, -1}
    return bool(change == 0)


async def every_effect_happened_once(service: Service) -> None:
    """A handler that completes its task in its own transaction left one row per done task, and none otherwise."""
    effects = Counter(row["task_id"] for row in await service.database.fetch("SELECT task_id FROM faults.effects"))
    done = {row["id"] for row in await service.tasks("id", "type LIKE '%effect%' AND status = 'done'")}
    doubled = {task_id: count for task_id, count in effects.items() if count != 1}
    assert not doubled, f"effects recorded more than once: {doubled}"
    assert set(effects) == done, f"done without effect, or the reverse: {sorted(set(effects) ^ done)[:20]}"
    wrong = await service.database.fetch(
        """SELECT t.id, t.attempt, e.attempt AS effect_of FROM tasks AS t JOIN faults.effects AS e ON e.task_id = t.id
           WHERE t.attempt <> e.attempt"""
    )
    assert not wrong, f"the effect is another attempt's than the result: {wrong[:5]}"


async def every_parent_has_its_children(service: Service) -> None:
    """A task that is done has the children of the attempt that completed it, and no others; other tasks have none."""
    found = defaultdict(list)
    for row in await service.tasks("parent_id, payload", "parent_id IS NOT NULL"):
        said = json.loads(row["payload"])
        found[row["parent_id"]].append((said["attempt"], said["number"]))
    wanted = {
        row["id"]: [(row["attempt"], number) for number in range(CHILDREN)]
        for row in await service.tasks("id, attempt", "type LIKE 'family%' AND status = 'done'")
    }
    wrong = {
        task_id: (children, wanted.get(task_id))
        for task_id in found.keys() | wanted.keys()
        if (children := sorted(found[task_id])) != wanted.get(task_id, [])
    }
    assert not wrong, f"{len(wrong)} parents have other children (attempt, number): {dict(list(wrong.items())[:5])}"


def each_attempt_started_at_most_once(service: Service, rows: list[dict[str, Any]]) -> None:
    """No attempt's handler started twice in one process, and the attempt that ended each task did start."""
    starts = service.starts()
    doubled = {start: count for start, count in starts.items() if count > 1}
    assert not doubled, f"(task, attempt, process) that started more than once: {doubled}"
    started = {(task_id, attempt) for task_id, attempt, _pid in starts}
    # an attempt may be lost before its handler starts, but an attempt after the row's last one never existed
    latest = {row["id"]: row["attempt"] for row in rows}
    beyond = [start for start in started if start[1] > latest[start[0]]]
    assert not beyond, f"attempts that the rows do not know: {beyond[:20]}"


async def nothing_is_left_over(service: Service, expected: Expected) -> None:
    """Outbox and queues are empty, no place is taken, no gone worker has a row, and dead letters are as expected."""

    async def is_empty(table: str) -> bool:
        # the row of a hint that was published reappears when the commit of that was cut off; a round later it is gone
        return await service.database.fetchval(f"SELECT count(*) FROM {table}") == 0

    for table in ("outbox", "held", "admissions"):
        await eventually(partial(is_empty, table), EMPTY_SECONDS, message=f"the table {table} is empty")

    def queues_are_empty() -> bool:
        left = {
            name: (queue.ready, queue.unacked)
            for name, queue in service.broker.queues().items()
            if queue.total and name != DEAD_LETTERS
        }
        assert not left, f"messages (ready, unacked) left: {left}"
        return True

    await eventually(queues_are_empty, EMPTY_SECONDS, message="every queue is empty")
    await eventually(
        lambda: dead_letters(service) == expected.dead_letters, EMPTY_SECONDS,
        message=f"{expected.dead_letters} dead letters, not {dead_letters(service)}",
    )  # fmt: skip


async def most_at_once(service: Service, where: str = "true") -> int:
    """How many of these tasks ran at once at most, by their rows' transitions in the order of their commits."""
    most = running = 0
    for row in await service.database.fetch(
        f"""SELECT x.old_status, x.new_status FROM faults.transitions AS x JOIN tasks AS t ON t.id = x.task_id
            WHERE {where} ORDER BY x.number"""
    ):
        running += (row["new_status"] == "processing") - (row["old_status"] == "processing")
        most = max(most, running)
    return most


def dead_letters(service: Service) -> int:
    """How many messages were put aside."""
    queue = service.broker.queues().get(DEAD_LETTERS)
    return queue.total if queue else 0


def no_process_failed(service: Service, expected: Expected) -> None:
    """Every process lives, drained, or was killed by the test; none logged an error that the case does not name."""
    for process in service.all():
        code = process.exit_code
        assert code is None or code in expected.exit_codes, f"{process.name} (pid {process.pid}) ended with {code}"
        for event in process.log_events():
            is_error = event.get("level") in {"error", "critical"} or "exception" in event
            assert expected.swept or event.get("event") != "tasks.swept", f"hints were lost: {event}"
            assert not is_error or event.get("event") in expected.logged_errors, f"{process.name} logged {event}"
