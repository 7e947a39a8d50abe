"""The load generator, a process: `python -m tests.bench.load PORT KIND COUNT CONNECTIONS [TOKEN] ANSWER_FILE`.

In: how many tasks, as KIND says: `echo` (to the bare application), `single` (a POST per task), `batch` (500 tasks per
POST), or `batch:TYPE`; TOKEN is shown with each. Requests are made before the clock starts; each connection sends its
next one as soon as its answer has come, unpaced. Out: JSON with start and end of the sending, CPU seconds of this
process, and percentiles of the answer times. An answer that is not 201 ends it with an error.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.http import Connection, request

BATCH_SIZE = 500
TIMEOUT_SECONDS = 300


def task(number: int, type_: str = "echo") -> dict[str, Any]:
    """The task that every measurement submits; its payload tells it from all others of its round."""
    return {"type": type_, "payload": {"n": number, "text": "to be echoed"}}


def requests(kind: str, count: int, token: str = "") -> list[bytes]:
    """All requests of a round, ready to be sent."""
    kind, _, type_ = kind.partition(":")
    if kind == "echo":
        return [request("POST", "/echo", task(number)) for number in range(count)]
    if kind == "single":
        return [request("POST", "/api/v1/tasks", task(number), token) for number in range(count)]
    if kind == "batch":
        batches = [range(first, min(first + BATCH_SIZE, count)) for first in range(0, count, BATCH_SIZE)]
        return [
            request("POST", "/api/v1/tasks/batch", {"tasks": [task(n, type_ or "echo") for n in batch]}, token)
            for batch in batches
        ]
    raise ValueError(f"unknown kind {kind}")


class Load:
    """Sends all requests over some connections and checks each answer."""

    def __init__(self, contents: list[bytes]) -> None:
        self._unsent: Iterator[bytes] = iter(contents)
        self._open = len(contents)
        self._finished = asyncio.get_running_loop().create_future()
        self.seconds: list[float] = []

    def send_next(self, connection: Connection) -> None:
        """Send the next request, if any is left."""
        content = next(self._unsent, None)
        if content is not None:
            connection.sent_at = time.perf_counter()
            connection.send(content)

    def on_answer(self, connection: Connection, status: bytes, body: bytes) -> None:
        """Check an answer and go on."""
        if status != b"201":
            if not self._finished.done():
                self._finished.set_exception(ValueError(f"answer {status.decode()}: {body[:500].decode()}"))
            return
        self.seconds.append(time.perf_counter() - connection.sent_at)
        self._open -= 1
        if self._open == 0:
            self._finished.set_result(None)
        else:
            self.send_next(connection)

    async def finish(self) -> None:
        """Return when every request has its 201. Raises ValueError for another answer, TimeoutError when stuck."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._finished


async def run(port: int, kind: str, count: int, connections: int, token: str) -> dict[str, Any]:
    """Do one round."""
    loop = asyncio.get_running_loop()
    load = Load(requests(kind, count, token))
    opened = [
        (await loop.create_connection(lambda: Connection(load.on_answer), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    started_at, cpu = time.time(), time.process_time()
    for connection in opened:
        load.send_next(connection)
    await load.finish()
    ended_at, cpu = time.time(), time.process_time() - cpu
    for connection in opened:
        connection.close()
    load.seconds.sort()
    return {
        "started_at": started_at,
        "ended_at": ended_at,
        "cpu_seconds": cpu,
        "request_seconds": {f"p{part}": load.seconds[len(load.seconds) * part // 100] for part in (50, 95, 99)},
    }


def main() -> None:
    """Read the arguments, run, write the answer."""
    port, kind, count, connections, *token, answer = sys.argv[1:]
    result = uvloop.run(run(int(port), kind, int(count), int(connections), "".join(token)))
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
