"""Metrics of running processes: figures of the whole installation once, and counts that add up."""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bobrai.telemetry.metrics import CATALOGUE
from tests.integration.telemetry.conftest import Service, samples
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Process
from tests.support.tcp_proxy import TcpProxy

SHARED = sorted(name for name, metric in CATALOGUE.items() if metric.once)


def shows(process: Process, queue: str = "default") -> bool:
    """Whether a dispatcher shows the figures of a queue: all of them, or none."""
    counts = {len(samples(process, name, queue=queue)) > 0 for name in SHARED}
    return counts == {True}


def shown(service: Service) -> list[bool]:
    """The same of every dispatcher, read twice, because a turn between two reads is nobody's fault."""
    return [shows(process) for process in service.dispatchers]


def owner(service: Service) -> Process:
    """The dispatcher that shows the figures of the default queue."""
    eventually_sync(lambda: sum(shown(service)) == 1, message="one dispatcher shows the figures")
    return next(process for process in service.dispatchers if shows(process))


def test_two_dispatchers_show_the_installation_once_and_the_survivor_takes_over(service: Service) -> None:
    service.start(dispatchers=2)
    for _ in range(5):
        service.submit("demo", delay_seconds=3600)
    first = owner(service)
    other = next(process for process in service.dispatchers if process is not first)
    eventually_sync(
        lambda: service.metric("bobrai_queue_tasks", *service.dispatchers, queue="default", state="delayed") == 5,
        20,
        message="the sum over both is right",
    )
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert sum(shown(service)) <= 1
    killed = time.monotonic()
    first.kill()
    eventually_sync(lambda: shows(other), 20, message="the survivor shows them")
    assert time.monotonic() - killed < 10
    assert sum(samples(other, "bobrai_queue_tasks", queue="default", state="delayed")) == 5


def freeze_between_rounds(dispatcher: Process, database: Database) -> None:
    """Freeze it when it holds no queue locked: nobody else may measure one that is."""

    def frozen_well() -> bool:
        dispatcher.freeze()
        held = asyncio.run(
            database.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            )
        )
        if held:
            dispatcher.thaw()
        return not held

    eventually_sync(frozen_well, message="frozen between two rounds")


@pytest.mark.timeout(150)
def test_a_dispatcher_that_is_cut_off_stops_to_show_before_the_other_begins(
    service: Service, database: Database, tcp_proxy: Callable[[str, int], TcpProxy]
) -> None:
    """It runs, answers scrapes, and cannot know that its queues are measured by another one now."""
    service.start(dispatchers=1, workers=0)
    other = service.dispatchers[0]
    parts = urlsplit(database.url)
    assert parts.hostname is not None
    proxy = tcp_proxy(parts.hostname, parts.port or 5432)
    freeze_between_rounds(other, database)
    through = {"BOBRAI_DATABASE_URL": proxy.url(database.url), "BOBRAI_DATABASE_DIRECT_URL": proxy.url(database.url)}
    cut_off = service.processes.start("dispatcher", environment=through)
    eventually_sync(lambda: shows(cut_off), 45, message="it takes over from the frozen one")
    other.thaw()
    service.dispatchers.append(cut_off)
    assert owner(service) is cut_off
    proxy.blackhole()

    def handed_over() -> bool:
        both = shows(other), shows(cut_off)
        assert both != (True, True), "counted twice"
        return both == (True, False)

    eventually_sync(handed_over, 45, message="the other one shows them")


def test_what_came_in_and_what_ended_adds_up(service: Service) -> None:
    service.start(workers=2)
    submitted = [service.submit("say") for _ in range(10)]
    retried = [service.submit("unsteady", {"until": 3}) for _ in range(3)]
    failed = [service.submit("hopeless") for _ in range(2)]
    for task_id in (*submitted, *retried, *failed):
        service.final(task_id)
    assert service.call("POST", f"/api/v1/tasks/{failed[0]}/replay")[0] == 200
    service.final(failed[0])
    waiting = [service.submit("say", delay_seconds=3600) for _ in range(4)]
    assert service.call("POST", f"/api/v1/tasks/{waiting[0]}/cancel")[0] == 200
    service.call("POST", "/api/v1/tasks", {"type": "nobody", "payload": 1})

    def finished(outcome: str) -> float:
        return service.metric("bobrai_tasks_finished_total", outcome=outcome)

    eventually_sync(
        lambda: (finished("done"), finished("failed"), finished("cancelled")) == (13, 3, 1),
        message="every end is counted once",
    )
    assert service.metric("bobrai_tasks_submitted_total") == 19
    assert service.metric("bobrai_tasks_replayed_total") == 1
    assert service.metric("bobrai_tasks_retried_total", reason="error") == 6
    assert service.metric("bobrai_attempts_started_total") == 10 + 9 + 3
    assert service.metric("bobrai_attempts_finished_total", outcome="retry") == 6
    assert service.metric("bobrai_submissions_refused_total", reason="invalid") == 1
    for histogram, count in (
        ("bobrai_task_duration_seconds", 13),
        ("bobrai_task_queue_wait_seconds", 22),
        ("bobrai_attempt_duration_seconds", 22),
    ):
        assert service.metric(f"{histogram}_count") == count
    assert service.metric("bobrai_hints_relayed_total") == 22
    assert service.metric("bobrai_messages_published_total", outcome="confirmed") == service.metric(
        "bobrai_message_hints_count"
    )
    assert service.metric("bobrai_worker_slots") == 20


def test_every_process_exports_what_the_catalogue_says(service: Service) -> None:
    service.start()
    service.final(service.submit("say"))
    for process, name in ((service.api, "api"), (service.dispatchers[0], "dispatcher"), (service.workers[0], "worker")):
        text = process.get("/metrics")[1].decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        wanted = {metric.name.removesuffix("_total") for metric in CATALOGUE.values() if name in metric.by}
        assert {found for found in families if found.startswith("bobrai_")} == wanted
        for short, family in families.items():
            declared = CATALOGUE.get(short) or CATALOGUE.get(f"{short}_total")
            for sample in family.samples if declared else ():
                assert set(sample.labels) - {"le"} == set(declared.labels if declared else ()), sample
        assert samples(process, "bobrai_connected", dependency="database") == [1.0]
        eventually_sync(
            lambda process=process: sum(samples(process, "bobrai_event_loop_lag_seconds_count")) > 0,
            message="the loop is watched",
        )
        pool = samples(process, "bobrai_database_pool_wait_seconds_count", pool=name)
        assert sum(pool) > 0
        assert samples(process, "bobrai_database_pool_size", pool=name) == [8.0]
    assert samples(service.dispatchers[0], "bobrai_tasks_swept_total", queue="default") == [0.0]
    assert samples(service.dispatchers[0], "bobrai_tasks_taken_back_total", queue="default", status="failed") == [0.0]


def test_a_lost_workers_tasks_are_counted_by_the_dispatcher(service: Service) -> None:
    service.start()
    task_id = service.submit("demo", "test", max_attempts=1)
    eventually_sync(
        lambda: service.call("GET", f"/api/v1/tasks/{task_id}")[1]["status"] == "processing", message="it runs"
    )
    service.workers.pop().kill()
    eventually_sync(
        lambda: service.metric("bobrai_task_losses_total", cause="worker_lost") == 1, message="the loss is counted"
    )
    assert service.metric("bobrai_workers_expired_total") == 1
    assert service.metric("bobrai_tasks_taken_back_total", status="pending") == 1
    service.workers.append(service.processes.start("worker"))
    assert service.final(task_id)["status"] == "done"
    assert service.metric("bobrai_tasks_retried_total") == 0
