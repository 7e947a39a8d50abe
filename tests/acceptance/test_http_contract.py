"""The running API is what its OpenAPI document says: schemathesis tries thousands of requests and finds nothing."""

import sys
from pathlib import Path

import pytest

from bobrai.api.schemas import IDEMPOTENCY_KEY_PATTERN
from bobrai.settings import load
from bobrai.store.pool import Database as Pool
from tests.integration.api.conftest import announce
from tests.support.databases import Database
from tests.support.processes import Processes

# Two promises that no schema can say: a key belongs to one body, so a generated key that was used gets a suffix; and a
# wait is held, so that a valid one is made short. What is invalid stays as it was generated.
HOOKS = """
import json, re, schemathesis

KEY = %r
bodies = {}

@schemathesis.hook
def before_call(context, case, kwargs):
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


@pytest.mark.timeout(120)
async def test_schemathesis_finds_nothing(database: Database, processes: Processes, tmp_path: Path) -> None:
    pool = Pool(load(database={"url": database.url}).database)
    await pool.open()
    await announce(pool)
    await pool.close()
    processes.environment.update({"BOBRAI_DATABASE_URL": database.url, "BOBRAI_LOG_LEVEL": "warning"})
    api = processes.start("api")
    (tmp_path / "hooks.py").write_text(HOOKS % IDEMPOTENCY_KEY_PATTERN)
    run = processes.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/api/openapi.json", "--checks", "all",
         "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "8", "--max-time", "25",
         "--continue-on-failure", "--no-shrink", "--no-color", "--generation-database", "none"],
        name="schemathesis", environment={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    code = await run.exited(timeout=90)
    assert code == 0, run.log_text()
    assert "Tested: 20" in run.log_text()
    assert api.is_running()
    assert "http.failed" not in api.log_text()
