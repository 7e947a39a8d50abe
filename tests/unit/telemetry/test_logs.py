"""Lines are JSON with fixed fields, and no credential leaves through them, whoever logs."""

import json
import subprocess
import sys

import pytest

SECRET_URLS = [
    "postgresql://user:hunter2@host/db",
    "amqp://user:hunter2@one:5672,amqp://user:hunter2@two:5672",
    "cannot reach amqps://user:hun@ter2hunter2@host: refused",
]

PROGRAM = """
import logging, sys
from bobrai.telemetry import logs
logs.configure(level="info", json={json}, process="test")
log = logs.get_logger("bobrai.store.pool")
for text in {urls!r}:
    log.info("room.event", text=text, nested=[text], deep={{"a": (text,)}}, error=ValueError(text))
    log.info(text)
    logging.getLogger("library").warning("failed for %s", text)
    try:
        raise ConnectionError(text)
    except ConnectionError:
        log.exception("room.failed")
        logging.getLogger("library").exception("also failed")
log.debug("too fine")
"""


def _run(*, as_json: bool) -> str:
    program = PROGRAM.format(json=as_json, urls=SECRET_URLS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_no_credential_is_printed(as_json: bool) -> None:
    printed = _run(as_json=as_json)
    assert "hunter2" not in printed
    assert "host" in printed, "only the credentials are left out"


def test_every_line_is_json_with_the_fixed_fields() -> None:
    lines = [json.loads(line) for line in _run(as_json=True).splitlines()]
    assert len(lines) == 5 * len(SECRET_URLS)
    for line in lines:
        assert {"event", "level", "at", "process"} <= set(line)
        assert line["process"] == "test"
    assert {line["level"] for line in lines} == {"info", "warning", "error"}


def test_an_exception_becomes_a_field() -> None:
    lines = [json.loads(line) for line in _run(as_json=True).splitlines()]
    (first, *_) = [line for line in lines if line["event"] == "room.failed"]
    assert "ConnectionError" in first["exception"]
    assert "Traceback" in first["exception"]
