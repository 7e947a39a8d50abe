"""A state machine walks real rows through every order of events that hypothesis can think of.

In: submits, deliveries that are doubled, late and lost, outcomes of attempts that may be over, lost workers, cancels,
deadlines, expiries, replays. The model beside it says what each must do; after every step the rows are compared with
it.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bobrai.domain.errors import TransitionRefused, WorkerGone
from bobrai.domain.message import Hint
from bobrai.domain.task import Outcome, OutcomeKind
from bobrai.store import attempts, outbox, tasks, workers
from bobrai.store.pool import Database
from tests.integration.store.builders import outcome, submitted, worker
from tests.integration.store.conftest import opened
from tests.integration.store.history import History
from tests.integration.store.model import Expected, Model
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

FINAL = {"done", "failed", "cancelled"}
RETRY = OutcomeKind.RETRY
MOST_TASKS = 3
EVENTS = [
    *(["deliver", "finish", "relay"] * 4),
    *(["cancel", "replay", "lose", "take_back", "time_passes", "expiry", "end_overdue"] * 2),
    *["submit", "release", "hire", "lose_messages", "sweep", "deadline"],
]
pick = st.integers(0, 20)  # an element of a list whose length the rule knows; the newest is the likeliest


class StoreMachine(RuleBasedStateMachine):
    """The store, and the model that it must agree with."""

    runner: asyncio.Runner
    store: Database  # one for all walks, because its connections cost more than a walk

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expected()
        self.run = self.runner.run
        self.history = History(self.store)
        self.moments = 0  # that have passed

    @initialize(tries=st.lists(st.integers(1, 3), min_size=1, max_size=2))
    def begin(self, tries: list[int]) -> None:
        """Every walk begins with a worker and a few tasks on their way: few, so that events meet on the same one."""
        for table in ("outbox", "tasks", "workers", "history"):  # TRUNCATE makes new files, however few the rows
            self.run(self.store.fetch(f"DELETE FROM {table}"))
        self.hire()
        for each in tries:
            self.submit(1, each, delayed=False, priority=0)
        self.relay(100)

    def teardown(self) -> None:
        """However the walk went, everything comes to an end; then the history is checked."""
        if self.expected.living or self.expected.gone:
            self.run(self._finish_all())

    @rule(
        event=st.sampled_from(EVENTS),
        which=st.lists(pick, min_size=1, max_size=2),
        who=pick,
        kind=st.sampled_from([*OutcomeKind, RETRY, RETRY]),
        flag=st.booleans(),
        tries=st.integers(1, 3),
    )
    def step(self, event: str, which: list[int], who: int, kind: OutcomeKind, flag: bool, tries: int) -> None:
        """One event; those that cannot happen now do nothing.

        One rule for all, because hypothesis would switch some of many rules off in every walk.
        """
        match event:
            case "submit" if len(self.expected.tasks) < MOST_TASKS:
                self.submit(len(which), tries, delayed=flag, priority=who % 11)
            case "relay":
                self.relay(1 if flag else 100)
            case "deliver" if self.expected.messages:
                self.deliver(which, doubled=flag or who % 3 > 0, who=who)
            case "finish" if self.expected.claims:
                self.finish(which[0], kind, delayed=flag)
            case "release" if self.expected.messages:
                self.release(which[0])
            case "cancel" | "replay" | "deadline" | "expiry" if self.expected.tasks:
                getattr(self, event)(which[0])
            case "hire" | "lose" | "take_back" | "lose_messages" | "sweep" | "time_passes" | "end_overdue":
                getattr(self, event)()

    # --- what happens ------------------------------------------------------------------------------------------------

    def submit(self, count: int, tries: int, delayed: bool, priority: int) -> None:
        """A client submits."""
        fields = {"max_attempts": tries, "priority": priority, "delay_seconds": 3600.0 if delayed else 0.0}
        for task_id in self.run(submitted(self.store, count, **fields)):
            self.expected.tasks[task_id] = Model(tries, tries)
            self.expected.outbox[task_id] = (0, not delayed)

    def relay(self, limit: int) -> None:
        """A dispatcher moves due hints to the broker."""
        taken = self.run(self._take(limit))
        due = [task_id for task_id, (_, due) in self.expected.outbox.items() if due]
        assert len(taken) == min(limit, len(due))
        for hint in taken:
            assert self.expected.outbox.pop(hint.task_id) == (hint.attempt, True)
            self.expected.messages.append(hint)

    async def _take(self, limit: int) -> list[Hint]:
        async with self.store.repeatable() as transaction:
            return [Hint(due[0], due[1]) for due in await outbox.take_due(transaction, {"default": limit}, limit)]

    def deliver(self, which: list[int], doubled: bool, who: int) -> None:
        """A worker gets some messages in any order, perhaps one that stays in the queue; it may be gone by now."""
        crew = self.expected.gone + self.expected.living
        me = _newest(crew, who)
        hints = [_newest(self.expected.messages, index) for index in which]
        if not doubled:
            self.expected.messages = [hint for hint in self.expected.messages if hint not in hints]
        if me in self.expected.gone:
            with pytest.raises(WorkerGone):
                self.run(attempts.claim(self.store, me, hints))
            self.expected.messages += [] if doubled else hints
            return
        fresh = {hint for hint in hints if self._waits(hint) and not self.expected.tasks[hint.task_id].overdue()}
        claims = self.run(attempts.claim(self.store, me, hints))
        assert {Hint(claim.task_id, claim.attempt - 1) for claim in claims} == fresh
        for claim in claims:
            model = self.expected.tasks[claim.task_id]
            model.status, model.attempt, model.worker, model.started = "processing", claim.attempt, me, True
            self.expected.claims.append((me, claim))

    def _waits(self, hint: Hint) -> bool:
        model = self.expected.tasks[hint.task_id]
        return model.status == "pending" and model.attempt == hint.attempt

    def finish(self, which: int, kind: OutcomeKind, delayed: bool) -> None:
        """A worker reports an outcome, perhaps of a claim that it lost long ago, perhaps for the second time."""
        me, claim = _newest(self.expected.claims, which)
        model = self.expected.tasks[claim.task_id]
        holds = (model.status, model.attempt, model.worker) == ("processing", claim.attempt, me)
        end = outcome(claim, kind, delay_seconds=3600.0 if delayed else 0.0)
        accepted = self.run(self._write(me, end))
        assert accepted == holds
        if not holds:
            return
        again = kind in {OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED}
        if not again:
            model.end(kind.value)
        elif model.cancel:
            model.end("cancelled")
        elif kind is OutcomeKind.RETRY and model.attempt == model.max_attempts:
            model.end("failed")
        else:
            model.attempt -= kind is OutcomeKind.INTERRUPTED
            model.started = model.attempt > 0
            model.max_attempts += kind is OutcomeKind.SNOOZE
            model.again()
            self.expected.outbox[claim.task_id] = (model.attempt, not delayed)

    async def _write(self, me: int, end: Outcome) -> bool:
        if end.kind is OutcomeKind.DONE:
            return bool(await attempts.complete(self.store, me, [end]))
        return bool(await attempts.end(self.store, me, [end]))

    def hire(self) -> None:
        """A worker starts."""
        self.expected.living.append(self.run(worker(self.store)))

    def lose(self) -> None:
        """The newest worker's lease runs out, and the reaper removes its row; another one starts."""
        me = self.expected.living.pop()
        self.hire()
        self.expected.gone.append(me)
        self.run(self.store.fetch("UPDATE workers SET expires_at = now() - interval '1 s' WHERE id = $1", me))
        lost = self.run(workers.expire(self.store, restart_grace_seconds=0.0))
        assert [row["id"] for row in lost] == [me]

    def take_back(self) -> None:
        """The reaper takes back what nobody runs any more."""
        lost = {task_id for task_id, model in self.expected.tasks.items()
                if model.status == "processing" and model.worker in self.expected.gone}  # fmt: skip
        assert {row["id"] for row in self.run(workers.take_back(self.store))} == lost
        for task_id in lost:
            model = self.expected.tasks[task_id]
            model.losses += 1
            if model.cancel:
                model.end("cancelled")
            else:
                model.again()
                model.max_attempts += 1
                self.expected.outbox[task_id] = (model.attempt, model.losses == 1)

    def cancel(self, which: int) -> None:
        """A user cancels."""
        task_id, model = self._task(which)
        if model.status in {"done", "failed"}:
            with pytest.raises(TransitionRefused):
                self.run(tasks.cancel(self.store, task_id, by=SOMEBODY))
            return
        self.run(tasks.cancel(self.store, task_id, by=SOMEBODY))
        model.cancel |= model.status != "cancelled"
        if model.status == "pending":
            model.end("cancelled")
            self.expected.outbox.pop(task_id, None)

    def replay(self, which: int) -> None:
        """A user wants a fresh set of attempts."""
        task_id, model = self._task(which)
        if model.status not in FINAL:
            with pytest.raises(TransitionRefused):
                self.run(tasks.replay(self.store, task_id, by=SOMEBODY))
            return
        self.run(tasks.replay(self.store, task_id, by=SOMEBODY))
        model.again()
        model.cancel, model.started, model.max_attempts = False, False, model.attempt + model.tries
        model.late = model.expired = 0
        model.replays += 1
        self.expected.outbox[task_id] = (model.attempt, True)

    def deadline(self, which: int) -> None:
        """A deadline passes, wherever the task stands."""
        task_id, model = self._task(which)
        model.late = self._passes("deadline_at", task_id)

    def expiry(self, which: int) -> None:
        """A task expires, wherever it stands."""
        task_id, model = self._task(which)
        model.expired = self._passes("expires_at", task_id)

    def _passes(self, moment: str, task_id: int) -> int:
        self.run(self.store.fetch(f"UPDATE tasks SET {moment} = now() WHERE id = $1", task_id))
        self.moments += 1
        return self.moments

    def end_overdue(self) -> None:
        """A dispatcher ends what waits and may not start any more."""
        late = {task_id: status for task_id, model in self.expected.tasks.items()
                if model.status == "pending" and (status := model.overdue())}  # fmt: skip
        assert set(self.run(tasks.overdue(self.store, limit=100))) == set(late)
        ended = self.run(tasks.end_overdue(self.store, list(self.expected.tasks)))
        assert {row["id"]: row["status"] for row in ended} == late
        for task_id, status in late.items():
            self.expected.tasks[task_id].end(status)
            self.expected.outbox.pop(task_id, None)

    def _task(self, which: int) -> tuple[int, Model]:
        task_id = _newest(sorted(self.expected.tasks), which)
        return task_id, self.expected.tasks[task_id]

    def lose_messages(self) -> None:
        """The broker forgets everything."""
        self.expected.messages.clear()

    def release(self, which: int) -> None:
        """A worker gives a hint back unclaimed."""
        hint = _newest(self.expected.messages, which)
        self.expected.messages.remove(hint)
        released = self.run(outbox.release_hints(self.store, [hint]))
        free = self._waits(hint) and hint.task_id not in self.expected.outbox
        assert released == free
        if free:
            self.expected.outbox[hint.task_id] = (hint.attempt, True)

    def sweep(self) -> None:
        """The sweeper gives an outbox row to all that no outbox row holds: too many at worst, never too few."""
        unheld = self.run(outbox.unheld(self.store, "default", -1.0, 1000))
        assert unheld == {
            Hint(task_id, model.attempt)
            for task_id, model in self.expected.tasks.items()
            if model.status == "pending" and task_id not in self.expected.outbox
        }
        assert self.run(outbox.sweep(self.store, unheld)) == len(unheld)
        self.expected.outbox |= {hint.task_id: (hint.attempt, True) for hint in unheld}

    def time_passes(self) -> None:
        """What was delayed falls due."""
        self.run(self._all_due())

    async def _all_due(self) -> None:
        await self.store.fetch("UPDATE outbox SET due_at = now() - interval '1 s' WHERE due_at > now()")
        await self.store.fetch("UPDATE tasks SET run_at = now() - interval '1 s' WHERE run_at > now()")
        self.expected.outbox = {task_id: (attempt, True) for task_id, (attempt, _) in self.expected.outbox.items()}

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def rows_are_as_expected(self) -> None:
        """Status, attempt, outbox: all as the model says; what waits is held by something, or the sweeper finds it."""
        rows = self.run(self._rows())
        assert {row["id"]: _columns(row) for row in rows} == {
            task_id: (model.status, model.attempt, model.max_attempts, model.cancel, self._outbox_of(task_id))
            for task_id, model in self.expected.tasks.items()
        }
        for row in rows:
            if row["status"] == "pending" and row["hint"] is not None:
                assert row["hint"] == row["attempt"], "an outbox row of a waiting task names its attempt"

    async def _rows(self) -> list[Any]:
        return await self.store.fetch(
            "SELECT t.id, t.status, t.attempt, t.max_attempts, t.cancel_requested, o.attempt AS hint,"
            " o.due_at <= now() AS due FROM tasks AS t LEFT JOIN outbox AS o ON o.task_id = t.id"
        )

    def _outbox_of(self, task_id: int) -> tuple[int | None, bool | None]:
        return self.expected.outbox.get(task_id, (None, None))

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _finish_all(self) -> None:
        me = await worker(self.store)
        for other in self.expected.living:
            await workers.unregister(self.store, other)
        await workers.take_back(self.store)
        await tasks.end_overdue(self.store, await tasks.overdue(self.store, limit=100))
        await self._all_due()
        await outbox.sweep(self.store, await outbox.unheld(self.store, "default", -1.0, 1000))
        claims = await attempts.claim(self.store, me, await self._take(1000))
        await attempts.complete(self.store, me, [outcome(claim, OutcomeKind.DONE) for claim in claims])
        open_rows = [row for row in await self._rows() if row["status"] not in FINAL or row["hint"] is not None]
        assert open_rows == [], "everything that was accepted has ended, and nothing waits for it"
        await self.history.check()
        await self._check_history()

    async def _check_history(self) -> None:
        ends = dict.fromkeys(self.expected.tasks, 0)
        started: dict[int, int] = {}
        for change in await self.history.changes():
            if change.new == "processing":
                assert change.new_attempt == started.get(change.task_id, 0) + 1, "one claim per attempt"
                started[change.task_id] = change.new_attempt
            elif change.new == "pending" and change.new_attempt < change.old_attempt:
                started[change.task_id] = change.new_attempt  # given back: it may start once more
            ends[change.task_id] += change.new in FINAL
        for task_id, model in self.expected.tasks.items():
            assert ends[task_id] == model.replays + 1, "final exactly once per set of attempts"


def _newest(items: list[Any], back: int) -> Any:
    return items[-1 - back % len(items)]


def _columns(row: Any) -> tuple[object, ...]:
    return row["status"], row["attempt"], row["max_attempts"], row["cancel_requested"], (row["hint"], row["due"])


@pytest.mark.timeout(300)  # finding the shortest walk to a defect takes its time
def test_any_order_of_events_keeps_every_promise(database: OwnDatabase) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(opened(database.url, 2))
        runner.run(History(store).install())
        machine = type("Machine", (StoreMachine,), {"runner": runner, "store": store})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=130, stateful_step_count=45, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        runner.run(store.close())
