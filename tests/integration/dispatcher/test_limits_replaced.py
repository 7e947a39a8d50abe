"""A task that waits may get other contents, and counts by their key from then on, whatever was decided of it before."""

import json
from collections.abc import Callable

import pytest

from bobrai.dispatcher import admission as admission_module
from bobrai.dispatcher.relay import Relay
from bobrai.domain.message import Hint
from bobrai.domain.task import Claim, OutcomeKind
from bobrai.domain.unique import Held
from bobrai.settings import Settings
from bobrai.store import attempts, submission, unique
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import new_task, outcome, worker

LIMITS = {"per_key": {"key": "/account", "concurrency": 1}}


class Service:
    """A limited queue, its relay, its broker and a worker."""

    def __init__(self, store: Database, relay: Relay, broker: Broker, me: int) -> None:
        self.store, self.relay, self.broker, self.me = store, relay, broker, me
        self.patient = PatientDatabase(store, 5.0)

    async def submit(self, account: str) -> int:
        """A task of a key."""
        return (await submission.submit(self.store, [new_task(payload=json.dumps({"account": account}))]))[0]

    async def replace(self, account: str, delay_seconds: float = 0.0) -> int:
        """The only one of its kind, as of this key from now on."""
        task = new_task(
            payload=json.dumps({"account": account}),
            delay_seconds=delay_seconds,
            unique=Held(bytes(32), "waiting", None, replace=True),
        )
        return (await unique.submit(self.patient, [[task]]))[0].ids[0]

    async def published(self) -> list[Hint]:
        """What the relay publishes in two rounds: one that takes what is due into lanes, one that lets it through."""
        self.broker.published.clear()
        for _ in range(2):
            await self.relay.run_once()
        return self.broker.hints()

    async def started(self, hints: list[Hint] | None = None) -> list[Claim]:
        """What a worker makes of hints, those that are published now when none are given."""
        hints = await self.published() if hints is None else hints
        return await attempts.claim(self.store, self.me, hints, may_be_limited=True)

    async def finish(self, claim: Claim) -> None:
        """The attempt is over."""
        await attempts.complete(self.store, self.me, [outcome(claim, OutcomeKind.DONE)])


@pytest.fixture
async def service(
    settings_with: Callable[..., Settings], store: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Service:
    """One whose queue runs one task per account."""
    for name in ("REST_SECONDS", "VAIN_REST_SECONDS"):
        monkeypatch.setattr(admission_module, name, -1.0)
    await store.fetch("UPDATE queues SET limits = $1 WHERE name = 'default'", json.dumps(LIMITS))
    me = await worker(store)
    relay = Relay(settings_with(), store, broker)
    await relay._refresh()
    return Service(store, relay, broker, me)


async def test_what_a_limit_holds_back_goes_to_the_lane_of_its_new_key(service: Service) -> None:
    await service.submit("a")
    await service.submit("b")
    of_a, of_b = sorted(await service.started(), key=lambda claim: claim.payload)
    mine = await service.replace("a")
    assert await service.published() == []  # a runs
    assert await service.replace("b") == mine
    await service.finish(of_a)
    assert await service.published() == []  # b runs
    await service.finish(of_b)
    (claim,) = await service.started()
    assert (claim.task_id, json.loads(claim.payload)) == (mine, {"account": "b"})
    assert (claim.attempt, claim.failures) == (1, 0)


async def test_what_a_limit_has_let_through_counts_by_its_new_key(service: Service) -> None:
    await service.submit("b")
    (of_b,) = await service.started()
    mine = await service.replace("a")
    (hint,) = await service.published()
    assert await service.replace("b") == mine
    assert await service.started([hint]) == []
    assert await service.published() == []  # b runs
    await service.submit("a")
    (of_a,) = await service.started()  # whose place is free
    assert json.loads(of_a.payload) == {"account": "a"}
    await service.finish(of_b)
    (claim,) = await service.started()
    assert (claim.task_id, claim.failures) == (mine, 0)


@pytest.mark.parametrize("let_through", [False, True])
async def test_what_is_put_off_gives_its_place_to_others(service: Service, let_through: bool) -> None:
    if not let_through:
        await service.submit("a")
        (before,) = await service.started()
    mine = await service.replace("a")
    hints = await service.published()
    assert bool(hints) == let_through
    assert await service.replace("a", delay_seconds=60.0) == mine
    assert await service.started(hints) == []
    if not let_through:
        await service.finish(before)
    other = await service.submit("a")
    (claim,) = await service.started()
    assert claim.task_id == other
    await service.finish(claim)
    await service.store.fetch("UPDATE outbox SET due_at = now()")
    assert [claim.task_id for claim in await service.started()] == [mine]
