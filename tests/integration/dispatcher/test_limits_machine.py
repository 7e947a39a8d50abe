"""A state machine looks for an order of events in which more runs than a limit allows, or a place is lost.

In: submits, rounds of two relays that crash between decision and publish, or whose broker refuses, answers nothing or
delivers twice; claims, ends of attempts, lost workers, cancels, limits that come and go. Out: at no moment does more
run than may, and in the end everything has run and nothing is held or counted.
"""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bobrai.dispatcher import admission as admission_module
from bobrai.dispatcher.relay import Relay
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.message import Hint
from bobrai.domain.task import Claim, OutcomeKind
from bobrai.domain.unique import Held
from bobrai.settings import load
from bobrai.store import attempts, outbox, submission, tasks, unique, workers
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import new_task, outcome, worker
from tests.integration.store.conftest import opened
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

KEYS = ("a", "b")
PER_KEY, IN_ALL = 1, 2
LIMITS = {"concurrency": IN_ALL, "per_key": {"key": "/account", "concurrency": PER_KEY}}
EVENTS = [
    *(["round", "claim"] * 6),
    *(["finish", "sweep"] * 3),
    *(["submit", "crash", "refuse", "deliver_unconfirmed", "deliver_twice", "lose", "take_back", "cancel", "replace"]),
    *["lose_messages", "release", "lift", "limit"],
]


class _Crash(Exception):
    """The dispatcher ends here."""


class LimitsMachine(RuleBasedStateMachine):
    """Real rows and two relays; the broker and the workers are the test's."""

    runner: asyncio.Runner
    store: Database
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.run = self.runner.run
        self.broker = Broker()
        self.messages: list[Hint] = []  # that are still somewhere: they may come late, twice or never
        self.claims: list[tuple[int, Claim]] = []
        self.crew: list[int] = []
        self.bounds = {"all": IN_ALL, **dict.fromkeys(KEYS, PER_KEY)}
        self.is_limited = True
        self.patient = PatientDatabase(self.store, 0.0)

    @initialize()
    def begin(self) -> None:
        """Every walk begins with a limited queue, two workers and some tasks of each key."""
        for table in ("unique_tasks", "outbox", "held", "admissions", "tasks", "workers", "queues"):
            self.run(self.store.fetch(f"DELETE FROM {table}"))
        self.run(self.store.fetch("INSERT INTO queues (name, limits) VALUES ('default', $1)", json.dumps(LIMITS)))
        self.run(self.broker.start())
        self.relays = [Relay(load(database={"url": self.url}), self.store, self.broker) for _ in range(2)]
        self.crew = [self.run(worker(self.store)) for _ in range(2)]
        for key in (*KEYS, *KEYS):
            self.submit(key)
        self.round(0)

    def teardown(self) -> None:
        """However the walk went, everything runs in the end, and nothing is held or counted any more."""
        if self.crew:
            self.run(self._finish_all())

    @rule(event=st.sampled_from(EVENTS), which=st.integers(0, 20), kind=st.sampled_from(list(OutcomeKind)))
    def step(self, event: str, which: int, kind: OutcomeKind) -> None:
        """One event; those that cannot happen now do nothing."""
        match event:
            case "submit":
                self.submit(KEYS[which % 2])
            case "finish" if self.claims:
                self.finish(which, kind)
            case "claim" | "deliver_twice" | "release" if self.messages:
                getattr(self, event)(which)
            case "round" | "crash" | "refuse" | "deliver_unconfirmed" | "cancel" | "replace":
                getattr(self, event)(which)
            case "lose" | "take_back" | "lose_messages" | "sweep" | "lift" | "limit":
                getattr(self, event)()

    # --- what happens ------------------------------------------------------------------------------------------------

    def submit(self, key: str) -> None:
        """A client submits."""
        self.run(submission.submit(self.store, [new_task(payload=json.dumps({"account": key}))]))

    def round(self, which: int) -> None:
        """A relay does a round."""
        self.run(self._round(which))
        self.messages += self.broker.hints()
        self.broker.published.clear()

    async def _round(self, which: int) -> None:
        relay = self.relays[which % 2]
        await relay._refresh()
        with contextlib.suppress(BrokerUnavailable, _Crash):
            await relay.run_once()

    def crash(self, which: int) -> None:
        """A relay ends between its decision and the publish."""

        async def end(*_: Any) -> None:
            raise _Crash

        self.relays[which % 2]._publish = end  # type: ignore[method-assign, assignment]
        self.run(self._round(which))
        self.relays[which % 2] = Relay(load(database={"url": self.url}), self.store, self.broker)

    def refuse(self, which: int) -> None:
        """The broker takes nothing."""
        self.broker.broken.add("default")
        self.run(self._round(which))
        self.broker.broken.clear()
        self.relays[which % 2]._windows.clear()

    def deliver_unconfirmed(self, which: int) -> None:
        """The broker has the messages, and its answer is lost."""
        publish = self.broker.publish

        async def unanswered(queue: str, messages: Any) -> list[bool]:
            await publish(queue, messages)
            raise BrokerUnavailable("no answer")

        self.broker.publish = unanswered  # type: ignore[method-assign]
        self.round(which)
        self.broker.publish = publish  # type: ignore[method-assign]
        self.relays[which % 2]._windows.clear()

    def claim(self, which: int) -> None:
        """A message reaches a worker."""
        hint = self.messages.pop(which % len(self.messages))
        self._claim(which, hint)

    def deliver_twice(self, which: int) -> None:
        """A message reaches a worker and stays in the broker."""
        self._claim(which, self.messages[which % len(self.messages)])

    def _claim(self, which: int, hint: Hint) -> None:
        me = self.crew[which % len(self.crew)]
        claims = self.run(attempts.claim(self.store, me, [hint], may_be_limited=True))
        self.claims += [(me, claim) for claim in claims]
        if not claims:
            self.run(outbox.release_hints(self.store, [hint]))

    def release(self, which: int) -> None:
        """A worker gives a hint back unclaimed."""
        self.run(outbox.release_hints(self.store, [self.messages.pop(which % len(self.messages))]))

    def finish(self, which: int, kind: OutcomeKind) -> None:
        """An attempt ends; perhaps its claim was lost."""
        me, claim = self.claims.pop(which % len(self.claims))
        end = outcome(claim, kind)
        self.run((attempts.complete if kind is OutcomeKind.DONE else attempts.end)(self.store, me, [end]))

    def lose(self) -> None:
        """A worker's lease runs out, and another one starts."""
        me = self.crew.pop(0)
        self.crew.append(self.run(worker(self.store)))
        self.run(self.store.fetch("DELETE FROM workers WHERE id = $1", me))

    def take_back(self) -> None:
        """The reaper takes back what nobody runs any more."""
        self.run(workers.take_back(self.store))

    def cancel(self, which: int) -> None:
        """A user cancels what waits."""
        waiting = self.run(self.store.fetch("SELECT id FROM tasks WHERE status = 'pending' ORDER BY id"))
        if waiting:
            self.run(tasks.cancel(self.store, waiting[which % len(waiting)]["id"], by=SOMEBODY))

    def replace(self, which: int) -> None:
        """A client submits one of its kind, or gives what waits other contents, which may count by another key."""
        alike = Held(bytes([which % 3] * 32), "waiting", None, replace=True)
        payload, delay = json.dumps({"account": KEYS[which // 3 % 2]}), 60.0 * (which % 5 == 0)
        self.run(unique.submit(self.patient, [[new_task(payload=payload, delay_seconds=delay, unique=alike)]]))

    def lose_messages(self) -> None:
        """The broker forgets everything."""
        self.messages.clear()

    def sweep(self) -> None:
        """The sweeper gives an outbox row to what it thinks is lost, perhaps wrongly."""
        self.run(outbox.sweep(self.store, self.run(outbox.unheld(self.store, "default", -1.0, 1000))))

    def lift(self) -> None:
        """Somebody removes the limits."""
        self._set(None)

    def limit(self) -> None:
        """Somebody sets them again; what runs already goes on."""
        self._set(json.dumps(LIMITS))

    def _set(self, limits: str | None) -> None:
        self.is_limited = limits is not None
        self.run(self.store.fetch("UPDATE queues SET limits = $1", limits))
        through = self._running("OR id IN (SELECT task_id FROM admissions)")
        self.bounds = {key: max(count, IN_ALL if key == "all" else PER_KEY) for key, count in through.items()}

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def no_more_runs_than_may(self) -> None:
        """Of no key, and in all, does more run than the limit says, or than ran or was let through when it was set."""
        if not self.is_limited or not self.crew:
            return
        for key, count in self._running().items():
            assert count <= self.bounds[key], f"{count} of {key} run"

    def _running(self, or_else: str = "") -> dict[str, int]:
        rows = self.run(
            self.store.fetch(f"SELECT payload ->> 'account' AS key FROM tasks WHERE status = 'processing' {or_else}")
        )
        found = {"all": len(rows), **dict.fromkeys(KEYS, 0)}
        for row in rows:
            found[row["key"]] += 1
        return found

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _finish_all(self) -> None:
        me = await worker(self.store)
        for other in self.crew:
            await workers.unregister(self.store, other)
        for _ in range(200):
            await workers.take_back(self.store)
            await self.store.fetch("UPDATE tasks SET run_at = now() WHERE run_at > now()")
            await self.store.fetch("UPDATE outbox SET due_at = now() WHERE due_at > now()")
            await self._round(0)
            hints, self.broker.published = self.broker.hints(), []
            claims = await attempts.claim(self.store, me, hints, may_be_limited=True)
            await attempts.complete(self.store, me, [outcome(claim, OutcomeKind.DONE) for claim in claims])
            if not hints:
                await outbox.sweep(self.store, await outbox.unheld(self.store, "default", -1.0, 1000))
                left = await self.store.fetch(
                    "SELECT (SELECT count(*) FROM tasks WHERE finished_at IS NULL) + (SELECT count(*) FROM held)"
                    " + (SELECT count(*) FROM admissions) + (SELECT count(*) FROM outbox)"
                )
                if left[0][0] == 0:
                    return
        raise AssertionError("something waits, is held or counts for ever")


@pytest.mark.timeout(300)  # finding the shortest walk to a defect takes its time
def test_no_order_of_events_lets_more_run_than_a_limit_allows_or_loses_a_place(
    database: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "REST_SECONDS",
        "VAIN_REST_SECONDS",
        "NOTHING_HELD_SECONDS",
        "COUNT_ANEW_SECONDS",
        "REPUBLISH_SECONDS",
    ):
        monkeypatch.setattr(admission_module, name, -1.0)
    with asyncio.Runner() as runner:
        store = runner.run(opened(database.url, 2))
        machine = type("Machine", (LimitsMachine,), {"runner": runner, "store": store, "url": database.url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        runner.run(store.close())
