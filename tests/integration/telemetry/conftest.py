"""A whole service of real processes on real servers, whose logs, metrics and traces are looked at."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.processes import Process, Processes
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
import asyncio, logging, os, sys, threading
import structlog
from bobrai import Context, PermanentFailure, Retry, task

log = logging.getLogger("my.handlers")

@task("say")
async def say(ctx: Context, payload: dict) -> dict:
    log.info("by logging")
    structlog.get_logger().info("by structlog")
    ctx.logger.info("by ctx")
    return payload

@task("threaded")
def threaded(ctx: Context, payload: dict) -> dict:
    log.info("by logging")
    return payload

@task("unsteady", retry=Retry(max_attempts=3, delay_seconds=0.05))
async def unsteady(ctx: Context, payload: dict) -> int:
    if ctx.attempt < payload["until"]:
        raise ValueError(f"not yet: {payload}")
    return ctx.attempt

@task("hopeless")
async def hopeless(payload: dict) -> None:
    raise PermanentFailure(f"never: {payload}")

@task("careless")
async def careless(payload: dict) -> None:
    def fail() -> None:
        raise ValueError(f"unheard: {payload}")
    async def fail_later() -> None:
        fail()
    asyncio.create_task(fail_later())
    threading.Thread(target=fail).start()
    await asyncio.sleep(0)

@task("imported")
async def imported(payload: dict) -> list[str]:
    return sorted(name for name in sys.modules if name.partition(".")[0] in {"opentelemetry", "requests"})

@task("spanning")
async def spanning(payload: dict) -> None:
    from opentelemetry import trace
    with trace.get_tracer("mine").start_as_current_span("own work"):
        log.info("inside")

@task("spanning-then-raising")
async def spanning_then_raising(payload: dict) -> None:
    from opentelemetry import trace
    with trace.get_tracer("mine").start_as_current_span("own work that fails"):
        raise ValueError("no")

@task("deadly")
async def deadly(payload: dict) -> None:
    os._exit(1)

@task("parent")
async def parent(ctx: Context, payload: dict) -> None:
    ctx.submit(say, payload)

@task("parent-process", runs_in="process")
def parent_process(ctx: Context, payload: dict) -> None:
    ctx.submit_many(say, [payload])

@task("spanning-thread")
def spanning_thread(payload: dict) -> None:
    from opentelemetry import trace
    with trace.get_tracer("mine").start_as_current_span("own work in a thread"):
        log.info("inside")
"""
QUICK = {
    "BOBRAI_HANDLERS": "telemetry_handlers",
    "BOBRAI_LOG_FORMAT": "json",
    "BOBRAI_WORKER_CONCURRENCY": "10",
    "BOBRAI_WORKER_LEASE_SECONDS": "3",
    "BOBRAI_WORKER_HEARTBEAT_SECONDS": "0.3",
    "BOBRAI_DISPATCHER_REAP_SECONDS": "0.2",
    "BOBRAI_DISPATCHER_MEASURE_SECONDS": "0.5",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    # on the test's own machine the receiver is near
    "no_proxy": "127.0.0.1",
}


class Service:
    """One installation, all of it this test's own."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.api: Process
        self.dispatchers: list[Process] = []
        self.workers: list[Process] = []

    def start(self, *, dispatchers: int = 1, workers: int = 1, **environment: str) -> "Service":
        """Start processes side by side, and wait until all of them are ready and the API knows the handlers."""
        for _ in range(workers):
            self.workers.append(self.processes.start("worker", environment=environment, wait_ready=False))
        for _ in range(dispatchers):
            self.dispatchers.append(self.processes.start("dispatcher", environment=environment, wait_ready=False))
        self.api = self.processes.start("api", environment=environment, wait_ready=False)
        for process in self.all():
            process.wait_ready()
        if workers:
            eventually_sync(self._knows, message="the API knows the handlers")
        return self

    def _knows(self) -> bool:
        return b"spanning-thread" in self.api.get("/api/openapi.json")[1]

    def all(self) -> list[Process]:
        """Every process."""
        return [*self.workers, *self.dispatchers, self.api]

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request to the API: status and body."""
        request = urllib.request.Request(self.api.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def submit(
        self, type_: str, payload: object = None, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> int:
        """Submit a task and return its id."""
        body = {"type": type_, "payload": {} if payload is None else payload, **more}
        status, answer = self.call("POST", "/api/v1/tasks", body, headers)
        assert status == 201, answer
        return int(answer["task_id"])

    def final(self, task_id: int) -> dict[str, Any]:
        """Wait until a task is final and return it."""

        def look() -> dict[str, Any] | None:
            task = self.call("GET", f"/api/v1/tasks/{task_id}?wait=10")[1]
            return task if task["status"] in {"done", "failed", "cancelled"} else None

        eventually_sync(look, 30, message=f"task {task_id} is final")
        return look() or {}

    def lines(self) -> list[dict[str, Any]]:
        """Every line that every process printed."""
        return [line for process in self.processes.all for line in process.log_events()]

    def metric(self, name: str, *processes: Process, **labels: str) -> float:
        """The sum over processes (all of them) of a metric's samples that have these labels."""
        return sum(value for process in processes or self.all() for value in samples(process, name, **labels))


def samples(process: Process, name: str, **labels: str) -> list[float]:
    """The values of a metric's samples that have these labels."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", process.get("/metrics")[1].decode(), re.MULTILINE)
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    return [float(value) for text, value in found if wanted <= set(text.split(","))]


@pytest.fixture
def service(database: Database, rabbitmq: VirtualHost, processes: Processes, tmp_path: Path) -> Service:
    """A service, none of its processes started yet."""
    (tmp_path / "telemetry_handlers.py").write_text(HANDLERS)
    processes.environment |= {
        **QUICK,
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_DATABASE_DIRECT_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
    }
    return Service(processes)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """A receiver of traces."""
    receiver = OtlpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def traced(service: Service, receiver: OtlpReceiver) -> Callable[..., Service]:
    """Starts the service with traces on."""

    def start(**environment: str) -> Service:
        return service.start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, **environment)

    return start
