"""The running API is what its OpenAPI document says: schemathesis tries hundreds of requests and finds nothing."""

import re
import sys
from pathlib import Path

import pytest

from bobrai.api.schemas import IDEMPOTENCY_KEY_PATTERN
from bobrai.domain import limits
from bobrai.domain.unique import POINTER_PATTERN
from tests.support.processes import Processes

# Promises that no schema can say: a key belongs to one body, so a generated key that was used gets a suffix; a wait is
# held, so that a valid one is made short; a queue's limit refuses all further tasks, so that a valid one is made high;
# and types are an open set, each with its own payload, so that a well-formed name becomes a known one, and what another
# type takes becomes a payload of it; a valid expiry is left out where the task is due no earlier; a valid pointer
# into a payload leads to all of it; and a burst gets a rate, whose need schemathesis overlooks within other objects.
# What is invalid otherwise stays as it was generated.
HOOKS = """
import datetime, json, re, schemathesis

KEY, TYPE, POINTER = %r, %r, %r
bodies = {}

def make_known(task):
    if isinstance(task, dict) and isinstance(task.get("type"), str) and re.fullmatch(TYPE, task["type"]):
        if task["type"] not in ("demo", "echo", "numbers"):
            task["type"] = "echo"
        elif task["type"] == "numbers" and "payload" in task and task["payload"] != "":
            task["payload"] = {"n": 1}

def make_startable(task):
    if not isinstance(task, dict):
        return
    for what in ("expires", "deadline"):
        ends, delay = task.get(f"{what}_seconds"), task.get("delay_seconds")
        if type(ends) in (int, float) and type(delay) in (int, float) and 0.001 <= ends <= delay:
            del task[f"{what}_seconds"]
        try:
            ends, due = (datetime.datetime.fromisoformat(task[name].upper()) for name in (f"{what}_at", "run_at"))
            if 1970 <= ends.year < 2100 and ends <= due:
                del task[f"{what}_at"]
        except (KeyError, AttributeError, ValueError, TypeError):
            pass

def make_resolvable(task):
    unique = task.get("unique") if isinstance(task, dict) else None
    key = unique.get("key") if isinstance(unique, dict) else None
    if isinstance(key, str) and len(key) <= 200 and re.fullmatch(POINTER, key):
        unique["key"] = ""

def make_rated(bounds):
    if isinstance(bounds, dict):
        if "burst" in bounds:
            bounds.setdefault("rate", "1/s")
        make_rated(bounds.get("per_key"))

@schemathesis.hook
def before_call(context, case, kwargs):
    tasks = case.body.get("tasks") if isinstance(case.body, dict) and "tasks" in case.body else [case.body]
    for task in tasks if isinstance(tasks, list) else ():
        make_known(task)
        make_startable(task)
        make_resolvable(task)
    if isinstance(case.body, dict) and type(limit := case.body.get("max_backlog")) is int and limit >= 0:
        case.body["max_backlog"] = 1_000_000
    if isinstance(case.body, dict):
        make_rated(case.body.get("limits"))
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(KEY, key):
        body = (case.path.endswith("batch"), repr(case.body))
        if bodies.setdefault(key.strip('"'), body) != body:
            headers["Idempotency-Key"] = f"another-{len(bodies)}"
            bodies[headers["Idempotency-Key"]] = body
    query = case.query or {}
    try:
        if 0 <= json.loads(str(query.get("wait"))) <= 60:
            query["wait"] = 0.05
    except (ValueError, TypeError):
        pass
"""


ACCEPTED = r'bobrai_http_requests_total\{method="POST",route="/api/v1/tasks(/batch)?",status="201"\}'


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("announced")
async def test_schemathesis_finds_nothing(processes: Processes, tmp_path: Path) -> None:
    processes.environment["BOBRAI_LOG_LEVEL"] = "warning"
    api = processes.start("api")
    (tmp_path / "hooks.py").write_text(HOOKS % (IDEMPOTENCY_KEY_PATTERN, limits.TYPE_PATTERN, POINTER_PATTERN))
    run = processes.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/api/openapi.json", "--checks", "all",
         "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "5",
         "--continue-on-failure", "--no-shrink", "--no-color", "--generation-database", "none"],
        name="schemathesis", environment={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    code = await run.exited(timeout=90)
    assert code == 0, run.log_text()
    found = re.search(r"Operations: +([0-9]+) selected / ([0-9]+) total", run.log_text())
    assert found is not None
    assert found[1] == found[2], "all of them"
    assert f"Tested: {found[1]}" in run.log_text()
    submits = [line for line in api.get("/metrics")[1].decode().splitlines() if re.match(ACCEPTED, line)]
    assert sum(float(line.split()[-1]) for line in submits) > 20, "most well-formed tasks are accepted"
    assert api.is_running()
    assert "http.failed" not in api.log_text()
