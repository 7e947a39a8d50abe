"""Logging decides nothing: whatever a handler does to it, and whoever reads it or does not, tasks end and are told."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.own_handlers import reached, submit
from tests.support.processes import PYTHONPATH, Process, Processes
from tests.support.rabbitmq import VirtualHost

SECRET = 'tr0ub4dor&3 / "quoted"'
HANDLERS = """
import logging, os, sys
import structlog
from bobrai import Context, task

SETUP

class Silent:
    def __str__(self):
        raise SystemExit("no")
    __repr__ = __str__

class Hidden(Exception):
    def __str__(self):
        raise ValueError("no")

@task("says")
async def says(ctx: Context) -> str:
    structlog.get_logger().info("by structlog")
    logging.getLogger("mine").warning("by logging")
    ctx.logger.info("by ctx")
    return "said"

@task("hostile")
async def hostile(ctx: Context) -> str:
    loop = []
    loop.append(loop)
    for value in (Silent(), "\\udcff", 10**6000, loop, "x" * 1_000_000, b"\\xff", {Silent(): {1: Silent()}}, Hidden()):
        logging.warning("%d", value)
        logging.warning(value)
        logging.error("%s", value, exc_info=Hidden(value))
        ctx.logger.warning("%d %s", value)
        ctx.logger.warning("value", value=value, event_=value, level=value, at=value)
        ctx.logger.error("value", exc_info=Hidden(value))
    return "said"

@task("leaks")
def leaks(payload: str) -> None:
    try:
        raise ValueError(f"cannot connect with {payload}")
    except ValueError as error:
        logging.exception("cannot connect with %s", payload)
        raise RuntimeError(f"while using {os.environ['BOBRAI_DATABASE_URL']} and {payload!r}") from error
"""
SETUPS = {
    "stdlib": "structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())",
    "renderer": "structlog.configure(processors=[structlog.processors.JSONRenderer()])",
}


@pytest.fixture
def folder(processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path) -> Path:
    """Where handlers' modules are, for processes that have their addresses."""
    processes.environment |= {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
        "BOBRAI_LOG_FORMAT": "json",
        "BOBRAI_API_KEY": SECRET,
    }
    for name, setup in {**SETUPS, "plain": ""}.items():
        (tmp_path / f"tasks_{name}.py").write_text(HANDLERS.replace("SETUP", setup))
    return tmp_path


async def outcome_of(database: Database, type_: str, payload: object = None, queue: str = "default") -> dict[str, Any]:
    """Submit a task and return its row once it is final."""
    ids = await submit(database, type_, payload, queue=queue)
    await reached(database, ids, "done", "failed", "cancelled")
    (row,) = await database.fetch("SELECT status, errors::text AS errors FROM tasks WHERE id = $1", ids[0])
    return row


def lost(process: Process) -> float:
    text = process.get("/metrics")[1].decode()
    return float(text.partition("\nbobrai_log_lines_lost_total ")[2].partition("\n")[0])


async def test_however_a_handlers_module_sets_up_logging_its_worker_works(
    processes: Processes, folder: Path, database: Database
) -> None:
    processes.start("dispatcher", wait_ready=False)
    workers = {}
    for name in SETUPS:
        environment = {"BOBRAI_HANDLERS": f"tasks_{name}", "BOBRAI_WORKER_QUEUES": name}
        workers[name] = processes.start("worker", environment=environment, wait_ready=False)
    for name, worker in workers.items():
        worker.wait_ready()
        for type_ in ("says", "leaks"):
            row = await outcome_of(database, type_, "x", queue=name)
            assert row["status"] == {"says": "done", "leaks": "failed"}[type_]
    for name, worker in workers.items():
        worker.terminate()
        assert await worker.exited() == 0
        lines = worker.log_events()
        assert len(lines) < 100
        assert {"worker.registered", "task.failed", "worker.stopped"} <= {line["event"] for line in lines}
        assert worker.log_text().count("by logging") == 1, name
        assert worker.log_text().count("by structlog") == 1, name
        (own,) = [line for line in lines if line["event"] == "by ctx"]
        assert (own["type"], own["attempt"]) == ("says", 1)
        if name == "stdlib":
            assert {"by structlog", "by logging"} <= {line["event"] for line in lines if line.get("type") == "says"}


async def test_nothing_that_a_handler_logs_fails_its_attempt(
    processes: Processes, folder: Path, database: Database
) -> None:
    processes.start("dispatcher", wait_ready=False)
    worker = processes.start("worker", environment={"BOBRAI_HANDLERS": "tasks_plain"})
    row = await outcome_of(database, "hostile")
    assert (row["status"], row["errors"]) == ("done", "[]")
    for line in worker.log_text().splitlines():
        assert len(line.encode()) < 70_000
        json.loads(line)
    assert lost(worker) == 0


async def test_no_credential_of_ours_is_in_a_log_or_a_stored_error(
    processes: Processes, folder: Path, database: Database
) -> None:
    processes.start("dispatcher", wait_ready=False)
    user, _, server = urlsplit(database.url).netloc.rpartition("@")  # whose tests' server trusts any password
    environment = {
        "BOBRAI_HANDLERS": "tasks_plain",
        "BOBRAI_DATABASE_URL": database.url.replace(
            f"{user}@{server}", f"{user.partition(':')[0]}:p%40ss-w0rd@{server}"
        ),
        "BOBRAI_DATABASE_PASSWORD": "an0ther-pass",
    }
    worker = processes.start("worker", environment=environment)
    for hint in (SECRET, f"token {SECRET}", "key=AKIAABCDEFGHIJKLMNOP", "password=hunter2hunter2"):
        row = await outcome_of(database, "leaks", hint)
        error = json.loads(row["errors"])[0]
        assert error["type"] == "RuntimeError"
        assert "***" in error["message"]
        assert "cannot connect with" in error["traceback"]
    stored = str(await database.fetch("SELECT errors::text FROM tasks"))
    for text in (stored, worker.log_text()):
        assert "cannot connect with" in text
        for secret in ("tr0ub4dor", "w0rd", "an0ther", "AKIA", "hunter2"):
            assert secret not in text


@pytest.mark.parametrize("output", ["gone", "full", "closed"])
async def test_work_goes_on_and_ends_well_when_nobody_can_read_the_lines(
    processes: Processes, folder: Path, database: Database, output: str
) -> None:
    redirect = {"gone": "| head -c 1 >/dev/null", "full": ">/dev/full 2>&1", "closed": ">&- 2>&-"}[output]
    started = {}
    for command in ("dispatcher", "worker"):
        port = processes._run.free_port()
        started[command] = processes.run(
            ["/bin/bash", "-c", f"set -o pipefail; {sys.executable} -m bobrai {command} {redirect}"],
            name=command, port=port,
            environment={**processes.environment, f"BOBRAI_{command.upper()}_HEALTH_BIND": f"127.0.0.1:{port}",
                         "BOBRAI_HANDLERS": "tasks_plain", "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    for process in started.values():
        process.wait_ready()
    row = await outcome_of(database, "leaks", "x")
    assert row["status"] == "failed"
    await eventually(lambda: output == "closed" or lost(started["worker"]) >= 1, message="lost lines are counted")
    for process in started.values():
        for child in [process._psutil, *process._psutil.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if "bobrai" in child.cmdline():
                    child.terminate()
        assert await process.exited() == 0


@pytest.mark.parametrize("command", [["migrate"], ["settings"]])
def test_names_and_values_of_the_environment_need_not_be_text(command: list[str], empty_database: Database) -> None:
    environment = {
        **os.environb, b"PYTHONPATH": PYTHONPATH.encode(), b"BOBRAI_DATABASE_URL": empty_database.url.encode(),
        b"BOBRAI_\xff\xfe": b"\xfe", b"\xff": b"\xff", b"OTEL_\xff": b"\xff",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "bobrai", *command], env=environment, capture_output=True, timeout=30)
    assert (done.returncode, b"Traceback" in done.stdout + done.stderr) == (0, False), done.stderr
    if command == ["migrate"]:
        assert b"settings.unknown_variable" in done.stdout


@pytest.mark.parametrize("variable", ["BOBRAI_DATABASE_PASSWORD", "BOBRAI_DATABASE_URL", "BOBRAI_LOG_LEVEL"])
def test_a_setting_that_is_not_text_is_said_in_one_line(variable: str) -> None:
    environment = {
        **os.environb, b"PYTHONPATH": PYTHONPATH.encode(), b"BOBRAI_DATABASE_URL": b"postgresql://a:b@127.0.0.1:1/x",
        variable.encode(): b"postgresql://\xff\xfe",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bobrai", "api"], env=environment, capture_output=True, timeout=30, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert variable in done.stderr
