"""A client that never gives up: it submits over HTTP and remembers every task that was accepted.

In: a way to an API's port, asked before each request, so that a dead API is left for a living one. Out: the accepted
ids. Every submission carries an Idempotency-Key and is repeated until its 201 comes, so that afterwards the accepted
ids must be exactly the rows.
"""

import http.client
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.support.eventually import NeverHappened, eventually_sync

HOST = "127.0.0.1"
REQUEST_SECONDS = 12.0
GIVE_UP_SECONDS = 60.0
# the answers that ask the client to come again; no answer at all is None
COME_AGAIN = {None, 429, 503}


class Refused(Exception):
    """The API said no to a submission that is right."""


class Load:
    """Submits from threads of its own, so that a test may block while the load goes on."""

    def __init__(self, port: Callable[[], int]) -> None:
        self.accepted: list[int] = []
        """The id of every accepted task."""
        self.repeated = 0
        """How many requests had to be sent again."""
        self._port = port
        self._idle: list[http.client.HTTPConnection] = []

    def submit(self, count: int = 1, *, batch: int = 1, threads: int = 4, keyed: bool = True, **task: Any) -> list[int]:
        """Submit `count` tasks in requests of `batch` tasks; returns their ids in any order.

        `seconds`, `gate`, `dies` and `account` make the payload (see `handlers.Work`), the rest are fields of the
        task; the type is `plain` unless said otherwise.
        """
        item = _item(task)
        sizes = [min(batch, count - first) for first in range(0, count, batch)]
        with ThreadPoolExecutor(min(threads, len(sizes))) as pool:
            answers = list(pool.map(lambda size: self._submit_one(item, size, keyed=keyed), sizes))
        return [task_id for ids in answers for task_id in ids]

    @contextmanager
    def flowing(
        self,
        *,
        types: Sequence[str] = ("plain", "effect"),
        pause: float = 0.02,
        threads: int = 2,
        batch: int = 1,
        **task: Any,
    ) -> Iterator[None]:
        """Submit one request after the other, of each type in turn, until the block ends.

        A refusal fails the block at its end. Fields of the task are as for `submit`.
        """
        stop = threading.Event()
        items = itertools.cycle([_item({"type": each, **task}) for each in types])

        def flow() -> None:
            while not stop.wait(pause):
                self._submit_one(next(items), batch, keyed=True)

        with ThreadPoolExecutor(threads) as pool:
            flows = [pool.submit(flow) for _ in range(threads)]
            try:
                yield
            finally:
                stop.set()
            for each in flows:
                each.result()

    def _submit_one(self, item: dict[str, Any], size: int, *, keyed: bool) -> list[int]:
        path, body = ("/api/v1/tasks", item) if size == 1 else ("/api/v1/tasks/batch", {"tasks": [item] * size})
        answer = self.post(path, body, key=str(uuid.uuid4()) if keyed else None)
        ids = [answer["task_id"]] if size == 1 else answer["task_ids"]
        self.accepted.extend(ids)
        return ids

    def post(self, path: str, body: Any, *, key: str | None = None) -> dict[str, Any]:
        """POST until the answer is 201, and return its body; raises `Refused` for any final answer."""
        answers: list[tuple[int | None, bytes]] = []

        def try_once() -> bool:
            answers.append(self.request(path, body, key=key))
            return answers[-1][0] not in COME_AGAIN

        try:
            eventually_sync(try_once, GIVE_UP_SECONDS, message=f"POST {path} is answered")
        except NeverHappened as error:
            raise NeverHappened(f"{error}; last answer {answers[-1] if answers else None}") from error
        self.repeated += len(answers) - 1
        status, text = answers[-1]
        if status != 201:
            raise Refused(f"POST {path}: {status} {text[:500]!r}")
        return dict(json.loads(text))

    def request(self, path: str, body: Any, *, key: str | None = None) -> tuple[int | None, bytes]:
        """POST once, on a connection that is kept; the status is None when no answer came."""
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        port = self._port()
        connection = self._idle.pop() if self._idle else None
        if connection is None or connection.port != port:
            if connection is not None:
                connection.close()
            connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)
        try:
            connection.request("POST", path, content, headers)
            response = connection.getresponse()
            answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return None, repr(error).encode()
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections that are kept."""
        for connection in self._idle:
            connection.close()


def _item(task: dict[str, Any]) -> dict[str, Any]:
    payload = {name: task.pop(name) for name in ("seconds", "gate", "dies", "account") if name in task}
    return {"type": "plain", "payload": payload, **task}
