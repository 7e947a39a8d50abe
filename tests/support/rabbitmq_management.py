"""RabbitMQ's management HTTP API, as far as the tests need it: virtual hosts, queues, connections, nodes.

Plain blocking calls of a few milliseconds each, on a fresh connection, so that a restarted broker needs no care.
"""

import base64
import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

CALL_SECONDS = 15.0


class ManagementError(Exception):
    """The management API refused; the message has method, path, status and answer."""


@dataclass(frozen=True)
class QueueCounts:
    """What one queue holds: messages (at most half a second old), and its consumers (at most a second old)."""

    name: str
    type: str
    ready: int
    unacked: int
    consumers: int

    @property
    def total(self) -> int:
        """All messages, delivered or not."""
        return self.ready + self.unacked


class Management:
    """One broker's management API."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 15672
        credentials = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(credentials.encode()).decode(),
            "Content-Type": "application/json",
        }

    def call(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> Any:
        """Call `/api` + path and return the decoded answer; statuses from 300 up raise unless accepted."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CALL_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/api{path}", content, self._headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300 and response.status not in accept:
            raise ManagementError(f"{method} {path}: {response.status} {text[:500]}")
        return json.loads(text) if text and response.status < 300 else None

    def create_virtual_host(self, name: str) -> None:
        """Make a virtual host; our user may do everything in it."""
        self.call("PUT", f"/vhosts/{_quoted(name)}", {})

    def delete_virtual_host(self, name: str) -> None:
        """Delete it with all its queues and connections; one that is gone already is fine."""
        self.call("DELETE", f"/vhosts/{_quoted(name)}", accept=(404,))

    def queues(self, virtual_host: str) -> dict[str, QueueCounts]:
        """All queues of a virtual host with their counts."""
        details = self.call("GET", f"/queues/{_quoted(virtual_host)}?disable_stats=true&enable_queue_totals=true")
        consumers: dict[str, int] = {}
        for consumer in self.call("GET", f"/consumers/{_quoted(virtual_host)}"):
            name = consumer["queue"]["name"]
            consumers[name] = consumers.get(name, 0) + 1
        return {
            queue["name"]: QueueCounts(
                queue["name"], queue.get("type", ""), queue.get("messages_ready", 0),
                queue.get("messages_unacknowledged", 0), consumers.get(queue["name"], 0),
            )
            for queue in details
        }  # fmt: skip

    def purge(self, virtual_host: str, queue: str) -> None:
        """Drop every ready message of a queue."""
        self.call("DELETE", f"/queues/{_quoted(virtual_host)}/{_quoted(queue)}/contents")

    def connections(self, virtual_host: str) -> list[str]:
        """Names of the open client connections, as of up to a second ago."""
        return [each["name"] for each in self.call("GET", f"/vhosts/{_quoted(virtual_host)}/connections")]

    def close_connections(self, virtual_host: str) -> int:
        """Cut every client connection from the broker's side; returns how many there were."""
        names = self.connections(virtual_host)
        for name in names:
            self.call("DELETE", f"/connections/{_quoted(name)}", accept=(404,))
        return len(names)

    def running_nodes(self) -> list[str]:
        """Names of the cluster's nodes that run now."""
        return sorted(node["name"] for node in self.call("GET", "/nodes") if node["running"])

    def queue_members(self, virtual_host: str, queue: str) -> list[str]:
        """Names of the nodes that hold a copy of a quorum queue."""
        details = self.call("GET", f"/queues/{_quoted(virtual_host)}/{_quoted(queue)}")
        return sorted(details.get("members", []))


def _quoted(name: str) -> str:
    return quote(name, safe="")
