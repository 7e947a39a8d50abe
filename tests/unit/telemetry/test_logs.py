"""Lines have fixed fields, JSON or ECS, and no credential leaves through them, whoever logs."""

import json
import subprocess
import sys
from typing import Any

import pytest

SECRET_URLS = [
    "postgresql://user:hunter2@host/db",
    "amqp://user:hunter2@one:5672,amqp://user:hunter2@two:5672",
    "cannot reach amqps://user:hun@ter2hunter2@host: refused",
]

PROGRAM = """
import logging, sys
from bobrai.telemetry import logs
logs.configure(level="info", format={format!r}, process="test", version="1.2.3")
log = logs.get_logger("bobrai.store.pool")
for text in {urls!r}:
    log.info("room.event", text=text, nested=[text], deep={{"a": (text,)}}, error=ValueError(text))
    log.info(text)
    logging.getLogger("library").warning("failed for %s, 100%%", text)
    try:
        raise ConnectionError(text)
    except ConnectionError:
        log.exception("room.failed")
        logging.getLogger("library").exception("also failed")
log.debug("too fine")
logging.getLogger("library").info("nobody asked")
"""

IN_CONTEXT = """
import asyncio, contextvars, logging, threading, structlog
from bobrai.telemetry import logs
logs.configure(level="info", format="json", process="test")
def handler(name):
    logging.getLogger("mine").info("by logging in %s", name)
    structlog.get_logger().info("by structlog", where=name)
    logs.get_logger("bobrai.x").info("by bobrai")
async def attempt():
    logs.carry(lambda: {"task_id": 7, "queue": "mail"})
    handler("loop")
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(handler, "thread"))
    thread.start(); thread.join()
asyncio.run(attempt())
logs.get_logger("bobrai.x").info("outside")
"""

LEVELS = """
import logging
from bobrai.telemetry import logs
logs.configure(level="warning", format="json", process="test")
log = logs.get_logger("bobrai.x")
log.info("one")
logs.set_level("debug")
assert logs.level() == "debug" and logs.prints(logging.DEBUG)
log.debug("two")
log.bind(a=1).debug("three")
logs.set_level("error")
log.warning("four")
log.error("five")
"""


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _printed(format_: str) -> str:
    return _run(PROGRAM.format(format=format_, urls=SECRET_URLS))


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("format_", ["json", "ecs", "console"])
def test_no_credential_is_printed(format_: str) -> None:
    printed = _printed(format_)
    assert "hunter2" not in printed
    assert "host" in printed, "only the credentials are left out"


def test_every_line_is_json_with_the_fixed_fields() -> None:
    lines = _lines(_printed("json"))
    assert len(lines) == 5 * len(SECRET_URLS)
    for line in lines:
        assert {"event", "level", "at", "process"} <= set(line)
        assert line["process"] == "test"
    assert {line["level"] for line in lines} == {"info", "warning", "error"}


def test_an_exception_becomes_a_field() -> None:
    (first, *_) = [line for line in _lines(_printed("json")) if line["event"] == "room.failed"]
    assert "ConnectionError" in first["exception"]
    assert "Traceback" in first["exception"]


def test_ecs_lines_have_elastics_names() -> None:
    lines = _lines(_printed("ecs"))
    assert len(lines) == 5 * len(SECRET_URLS)
    for line in lines:
        assert list(line)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
        assert line["service.name"] == "bobrai-test"
        assert line["service.version"] == "1.2.3"
        assert {"event", "level", "at", "process", "module"}.isdisjoint(line)
        own = [name for name in line if "." not in name and name not in {"@timestamp", "message"}]
        assert own == [], "what the schema does not name is under bobrai."
    (failed, *_) = [line for line in lines if line["message"] == "room.failed"]
    assert failed["error.type"] == "ConnectionError"
    assert failed["error.message"] == SECRET_URLS[0].replace("user:hunter2", "***")
    assert "Traceback" in failed["error.stack_trace"]
    assert failed["log.logger"] == "store.pool"


def test_ecs_turns_our_fields_into_the_schemas_units_and_types() -> None:
    from bobrai.telemetry.ecs import Fields

    event = {"event": "http.request", "at": "now", "level": "info", "process": "api", "seconds": 0.25, "status": 201,
             "request_id": "r", "trace_id": "t", "span_id": "s", "task_id": 9}  # fmt: skip
    line = Fields("1")(event)
    assert line["event.duration"] == 250_000_000
    assert (line["http.response.status_code"], line["http.request.id"]) == (201, "r")
    assert (line["trace.id"], line["span.id"], line["bobrai.task_id"]) == ("t", "s", 9)
    taken_back = Fields("1")({"event": "e", "at": "now", "level": "info", "status": "pending"})
    assert taken_back["bobrai.status"] == "pending"


def test_a_handlers_own_lines_carry_its_tasks_fields() -> None:
    *inside, outside = _lines(_run(IN_CONTEXT))
    assert [line["event"] for line in inside] == [
        "by logging in loop",
        "by structlog",
        "by bobrai",
        "by logging in thread",
        "by structlog",
        "by bobrai",
    ]
    for line in inside:
        assert (line["task_id"], line["queue"]) == (7, "mail")
    assert "task_id" not in outside


def test_the_level_changes_while_the_process_runs() -> None:
    assert [line["event"] for line in _lines(_run(LEVELS))] == ["two", "three", "five"]
