"""A worker says which queues of its types nobody consumes, when that changes, and nothing that is over at once."""

from typing import Any

import pytest

from bobrai.store import workers
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker import unconsumed
from tests.integration.worker.service import Service
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def _frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unconsumed, "LOOK_SECONDS", 0.05)


def of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


async def test_a_queue_of_its_types_that_nobody_consumes_is_said_once_until_somebody_does(service: Service) -> None:
    @service.task("thumbnail", queue="media")
    async def thumbnail() -> None: ...

    with capture_logs() as lines:
        await service.worker()
        await eventually(lambda: of(lines, "worker.queues_unconsumed"), message="it is said at start")
        other = await service.worker(queues="default,media")
        await eventually(lambda: of(lines, "worker.queues_consumed"), message="it is said that it is over")
        other.stop.request("the other worker goes")
        await other.ended()
        await eventually(lambda: len(of(lines, "worker.queues_unconsumed")) == 2, message="it is said anew")
    first, _ = of(lines, "worker.queues_unconsumed")
    assert (first["log_level"], first["queues"], first["types"]) == ("warning", ["media"], ["thumbnail"])
    assert "BOBRAI_WORKER_QUEUES" in first["hint"]


async def test_what_is_missing_for_one_look_is_not_said(service: Service) -> None:
    """The workers of an installation start together, and the first of them to look is not alone for long."""

    @service.task("thumbnail", queue="media")
    async def thumbnail() -> None: ...

    looks = unconsumed.Unconsumed(service.database, service.registry.types())
    with capture_logs() as lines:
        await looks.look()
        for queues in (["default"], ["media"]):
            await workers.register(service.database, queues=queues, host="h", concurrency=1, lease_seconds=60)
        await looks.look()
        await looks.look()
    assert [line for line in lines if line["event"].startswith("worker.queues")] == []
