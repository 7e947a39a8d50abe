"""The pods of a release by their parts, and a client of its API."""

import json
import urllib.request
from typing import Any

from tests.pods.node import Node
from tests.pods.pod import Pod
from tests.support.eventually import eventually_sync

READY_SECONDS = 300.0


class Release:
    """What `helm install` with default values makes, but for the external metrics, which need a Kubernetes API."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.postgresql = node.add("StatefulSet", "bobrai-postgresql")[0]
        self.pgbouncers = node.add("Deployment", "bobrai-pgbouncer", 2)
        self.rabbitmqs = node.add("StatefulSet", "bobrai-rabbitmq", 3)
        self.api = node.add("Deployment", "bobrai-api")[0]
        self.dispatcher = node.add("Deployment", "bobrai-dispatcher")[0]
        self.worker = node.add("Deployment", "bobrai-worker-default")[0]
        # as NOTES.txt reads it
        self._key = node.content("Secret", "bobrai-api-keys")["admin"].decode()
        self.smoke = node.add("Pod", "bobrai-smoke")[0]

    @property
    def all(self) -> list[Pod]:
        """Every pod that keeps running."""
        stateful = [self.postgresql, *self.pgbouncers, *self.rabbitmqs]
        return [*stateful, self.api, self.dispatcher, self.worker]

    def bring_up(self) -> None:
        """Start everything and wait until it is ready.

        The brokers first: here a Service's name leads to pods that are not ready too, and a queue that is declared
        before all nodes have joined lives on fewer of them.
        """
        self.node.start([self.postgresql, *self.pgbouncers, *self.rabbitmqs], READY_SECONDS)
        self.node.start([self.dispatcher, self.worker, self.api], READY_SECONDS)

    def submit(self, **task: Any) -> int:
        """Submit a task and return its id; raises OSError when it is not accepted."""
        return int(self._call("/api/v1/tasks", task)["task_id"])

    def task(self, task_id: int) -> dict[str, Any]:
        """Return a task as the API shows it."""
        return self._call(f"/api/v1/tasks/{task_id}")

    def wait_done(self, task_id: int, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until the task is done, whatever the API says meanwhile, and return it."""

        def done() -> bool:
            try:
                return bool(self.task(task_id)["status"] == "done")
            except OSError:
                return False

        eventually_sync(done, seconds, message=f"task {task_id} is done")
        return self.task(task_id)

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._key}"} | ({"Content-Type": "application/json"} if data else {})
        request = urllib.request.Request(f"http://{self.api.address}:8001{path}", data, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found
