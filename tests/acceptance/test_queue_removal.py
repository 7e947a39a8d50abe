"""A queue that is removed while clients still use it loses none of their tasks, between real processes."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.own_handlers import with_handlers
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
from bobrai import task

@task("mine", queue="media")
async def mine(payload: str) -> str:
    return payload
"""


def call(method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """Return the status and the decoded answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_tasks_that_meet_the_removal_of_their_queue_run(
    processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path
) -> None:
    with_handlers(processes, database, rabbitmq, tmp_path / "removal_tasks.py", HANDLERS)
    api = processes.start("api")
    late = processes.start("api", environment={"BOBRAI_API_REFRESH_SECONDS": "3600"})
    worker = processes.start("worker", "--queues", "media")
    task = {"type": "mine", "payload": "x"}
    status, first = call("POST", f"{late.url}/api/v1/tasks", task)
    assert status == 201
    assert call("GET", f"{late.url}/api/v1/tasks/{first['task_id']}?wait=20")[1]["status"] == "done"
    assert call("DELETE", f"{api.url}/api/v1/queues/media")[0] == 409, "a worker consumes it"
    worker.terminate()
    assert await worker.exited() == 0

    assert call("DELETE", f"{api.url}/api/v1/queues/media")[0] == 204
    assert call("GET", f"{api.url}/api/v1/queues/media")[0] == 404
    status, lost = call("POST", f"{late.url}/api/v1/tasks", task)
    assert status == 201
    await eventually(lambda: call("GET", f"{api.url}/api/v1/queues/media")[0] == 200, message="the queue is back")
    assert call("GET", f"{api.url}/api/v1/types/mine")[1]["workers"] == 0
    processes.start("worker", "--queues", "media")
    assert call("GET", f"{late.url}/api/v1/tasks/{lost['task_id']}?wait=20")[1]["status"] == "done"
    assert call("GET", f"{api.url}/api/v1/types/mine")[1]["workers"] == 1
    assert call("GET", f"{api.url}/api/v1/tasks/{first['task_id']}")[1]["status"] == "done"
