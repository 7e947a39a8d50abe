"""What generators make of the OpenAPI document of a running service: valid, and of use against that very service."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import environments
from tests.support.databases import Database
from tests.support.processes import Process, Processes

# The first run of all makes the environment of the generators.
pytestmark = [pytest.mark.timeout(environments.INSTALL_SECONDS), pytest.mark.xdist_group("generated_clients")]

# Every way in which a payload may be hard to name: parts, a part that holds itself, dots, twins but for one.
HANDLERS = """
from enum import Enum

from pydantic import BaseModel

from bobrai import task


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Node(BaseModel):
    title: str
    size: Size = Size.SMALL
    children: list["Node"] = []


@task("tree.count")
async def count(payload: Node) -> int:
    return 1 + sum([await count(child) for child in payload.children])


@task("tree_count")
async def nothing() -> None:
    pass
"""

ATTRS_CLIENT = """
import datetime, sys
from client import Client
from client.api.tasks import cancel_task, list_tasks, read_task, submit_task
from client.models import PayloadOfTreeCountNode, PayloadOfTreeCountSize, ProblemView, TaskCreated
from client.models import TaskStatus, TaskSubmission, TaskView

with Client(base_url=sys.argv[1]) as client:
    leaf = PayloadOfTreeCountNode(title="leaf", size=PayloadOfTreeCountSize.LARGE)
    tree = PayloadOfTreeCountNode(title="root", children=[leaf, leaf])
    body = TaskSubmission(payload=tree.to_dict(), type_="tree.count", priority=5)
    created = submit_task.sync(client=client, body=body, idempotency_key="once")
    assert isinstance(created, TaskCreated), created
    assert type(created.task_id) is int
    task = read_task.sync(created.task_id, client=client, wait=20.0)
    assert isinstance(task, TaskView), task
    assert task.status is TaskStatus.DONE, task
    assert (task.id, task.type_, task.priority, task.result) == (created.task_id, "tree.count", 5, 3)
    assert isinstance(task.created_at, datetime.datetime) and task.created_at.tzinfo is not None
    assert isinstance(task.finished_at, datetime.datetime)
    page = list_tasks.sync(client=client, status=TaskStatus.DONE, limit=1)
    assert [each.id for each in page.tasks] == [task.id]
    conflict = cancel_task.sync(task.id, client=client)
    assert isinstance(conflict, ProblemView) and conflict.status == 409, conflict
    unknown = submit_task.sync(client=client, body=TaskSubmission(payload=1, type_="announced-tomorrow"))
    assert isinstance(unknown, ProblemView) and unknown.errors[0].pointer == "/type", unknown
"""

PYDANTIC_CLIENT = """
import datetime, sys
import httpx, models

with httpx.Client(base_url=sys.argv[1] + "/api/v1") as client:
    tree = models.PayloadOfTreeCountNode(title="root", children=[models.PayloadOfTreeCountNode(title="leaf")])
    for payload, type_ in ((tree.model_dump(mode="json"), "tree.count"), (7, "echo"), ("text", "echo")):
        body = models.TaskSubmission(payload=payload, type=type_).model_dump_json(exclude_unset=True)
        answer = client.post("/tasks", content=body, headers={"Content-Type": "application/json"})
        created = models.TaskCreated.model_validate_json(answer.content)
        answer = client.get(f"/tasks/{created.task_id}", params={"wait": 20}, timeout=30)
        task = models.TaskView.model_validate_json(answer.content)
        assert task.status is models.TaskStatus.done, task
        assert type(task.id) is int and isinstance(task.created_at, datetime.datetime)
"""


@pytest.fixture(scope="module")
def tools() -> Path:
    """Where the validator and the generators are."""
    return environments.install("clients", environments.CLIENTS)


@pytest.fixture
def service(database: Database, processes: Processes, tmp_path: Path) -> Process:
    """The whole service, with handlers whose payloads are hard to describe."""
    (tmp_path / "my_tasks.py").write_text(HANDLERS)
    processes.environment["BOBRAI_DATABASE_URL"] = database.url
    return processes.start("dev", "--handlers", "my_tasks")


@pytest.fixture
def document(service: Process, tmp_path: Path) -> Path:
    """The document that it serves, in a file."""
    file = tmp_path / "openapi.json"
    file.write_bytes(service.get("/api/openapi.json")[1])
    return file


def run(tools: Path, folder: Path, program: str, *arguments: str) -> str:
    """Run a program of the environment to its end and return what it said; it must succeed."""
    done = subprocess.run(
        [str(tools / program), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": f"{tools}:/usr/bin:/bin", "PYTHONPATH": str(folder), "HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_document_is_valid_openapi(document: Path, tools: Path, tmp_path: Path) -> None:
    assert "OK" in run(tools, tmp_path, "openapi-spec-validator", str(document))
    shapes = json.loads(document.read_text())["components"]["schemas"]
    assert set(refs(shapes)) <= {f"#/components/schemas/{name}" for name in shapes}


def refs(node: Any) -> Iterator[str]:
    """Where every reference of a document leads."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from refs(each)
    elif isinstance(node, list):
        for each in node:
            yield from refs(each)


def test_a_client_of_openapi_python_client_submits_and_reads(
    service: Process, document: Path, tools: Path, tmp_path: Path
) -> None:
    run(
        tools, tmp_path, "openapi-python-client", "generate", "--path", str(document),
        "--output-path", str(tmp_path / "client"), "--meta", "none", "--fail-on-warning",
    )  # fmt: skip
    run(tools, tmp_path, "python", "-W", "error", "-c", ATTRS_CLIENT, service.url)


def test_models_of_datamodel_codegen_submit_and_read(
    service: Process, document: Path, tools: Path, tmp_path: Path
) -> None:
    run(
        tools, tmp_path, "datamodel-codegen", "--input", str(document), "--input-file-type", "openapi",
        "--output", "models.py", "--output-model-type", "pydantic_v2.BaseModel", "--set-default-enum-member",
    )  # fmt: skip
    run(tools, tmp_path, "python", "-W", "error", "-c", PYDANTIC_CLIENT, service.url)
