"""Clients of a busy shop: they submit, wait, look, cancel, replay, and make every mistake that the API refuses.

In: the address of an API, and a token that it believes. Out: load on every queue until the block ends. It stops by
itself.
"""

import contextlib
import http.client
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

HOST = "127.0.0.1"
PAUSE_SECONDS = 0.05
TASKS = "/api/v1/tasks"
# (type, queue): mail goes through two queues, so that a queue has several types and a type several queues
KINDS = (("mail", "default"), ("charge", "default"), ("thumbnail", "media"), ("mail", "media"), ("report", "reports"))
SCHEDULED_QUEUE = "tomorrow"
# more than is worked off, so that there is a backlog to look at
FLOODED = ("report", "reports")
ISSUER = "shop"
UNKNOWN_KEY = f"bobrai_nobody_{'x' * 43}"
GUESSES = 3  # at a time, more than an address may go on with


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=20)

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, Any]:
        """Status and parsed body; raises OSError when no answer comes."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read() or b"null")

    def submit(self, kind: str, queue: str, payload: object, **more: object) -> Any:
        """Submit one task and return the answer's body."""
        return self.ask("POST", TASKS, {"type": kind, "queue": queue, "payload": payload, **more})[1]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def is_taken(port: int) -> bool:
    """Whether the API takes a task of every kind, which it does once it knows the types."""
    client = Client(port)
    try:
        return all(client.submit(kind, queue, 5).get("task_id") for kind, queue in KINDS)
    finally:
        client.close()


def schedule(port: int, count: int) -> None:
    """Submit so many tasks for tomorrow, into a queue that has no others."""
    client = Client(port)
    tasks = [{"type": "mail", "queue": SCHEDULED_QUEUE, "payload": 5, "delay_seconds": 86400}] * count
    status, answer = client.ask("POST", f"{TASKS}/batch", {"tasks": tasks})
    assert status == 201, answer
    client.close()


def _steady(port: int, stop: threading.Event) -> None:
    """One task of each kind, one after the other; some delayed."""
    client = Client(port)
    for number, (kind, queue) in zip(itertools.count(), itertools.cycle(KINDS)):
        if stop.wait(PAUSE_SECONDS / 2):
            break
        client.submit(kind, queue, number, **({"delay_seconds": 5} if number % 7 == 0 else {}))
    client.close()


def _flood(port: int, stop: threading.Event) -> None:
    """Batches into one queue, a little faster than its workers are."""
    client = Client(port)
    kind, queue = FLOODED
    for number in itertools.count(1):
        tasks = [{"type": kind, "queue": queue, "payload": number * 20 + each} for each in range(20)]
        client.ask("POST", f"{TASKS}/batch", {"tasks": tasks})
        if stop.wait(0.7):
            break
    client.close()


def _curious(port: int, stop: threading.Event) -> None:
    """Waits for tasks, lists, cancels, replays, and asks for what is refused or not there."""
    client = Client(port)
    for number in itertools.count():
        task = client.submit("mail", "default", 10 * number + 5)["task_id"]
        client.ask("GET", f"{TASKS}/{task}?wait=3")
        client.ask("POST", f"{TASKS}/{task}/replay", {})
        delayed = client.submit("charge", "default", number, delay_seconds=600)["task_id"]
        client.ask("POST", f"{TASKS}/{delayed}/cancel", {})
        client.ask("POST", TASKS, {"type": "mail", "payload": "not a number"})
        client.ask("GET", f"{TASKS}/999999999")
        client.ask("GET", f"{TASKS}?limit=5")
        if stop.wait(PAUSE_SECONDS):
            break
    client.close()


def _strangers(port: int, stop: threading.Event, token: str) -> None:
    """Shows a good token, one that was changed on its way, a key that nobody made, and nothing where one is needed."""
    client = Client(port)
    signed, _, signature = token.rpartition(".")
    changed = f"{signed}.{signature[8:16]}{signature[:8]}{signature[16:]}"
    for number in itertools.count():
        assert client.ask("POST", TASKS, {"type": "mail", "payload": 10 * number + 5}, token=token)[0] == 201
        client.ask("GET", TASKS, token=changed)
        for _ in range(GUESSES):
            client.ask("GET", TASKS, token=UNKNOWN_KEY)
        assert client.ask("GET", "/api/v1/keys")[0] == 401
        if stop.wait(PAUSE_SECONDS):
            break
    client.close()


@contextlib.contextmanager
def flowing(port: int, token: str) -> Iterator[None]:
    """Load until the block ends; an answer that never came fails the block at its end."""
    stop = threading.Event()
    flows = (_steady, _flood, _curious, _curious, partial(_strangers, token=token))
    with ThreadPoolExecutor(len(flows)) as pool:
        running = [pool.submit(flow, port, stop) for flow in flows]
        try:
            yield
        finally:
            stop.set()
        for each in running:
            each.result()
