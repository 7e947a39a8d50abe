"""Taskiq's producer, a process of its own: `send COUNT ANSWER_FILE` or `probe RATE SECONDS ANSWER_FILE`.

`send` keeps 64 publishes under way, as many as the product's client keeps submits.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.peers.taskiq_app import broker, echo, results

POLL_SECONDS = 0.001
CONCURRENCY = 64


def payload(number: int) -> dict[str, Any]:
    """The same payload that the product gets."""
    return {"n": number, "text": "to be echoed"}


async def _send_all(numbers: Iterator[int]) -> None:
    for number in numbers:
        await echo.kiq(payload(number))


async def send(count: int) -> dict[str, Any]:
    """Send as fast as it goes."""
    started_at, cpu = time.time(), time.process_time()
    numbers = iter(range(count))
    await asyncio.gather(*(_send_all(numbers) for _ in range(CONCURRENCY)))
    return {"started_at": started_at, "ended_at": time.time(), "cpu_seconds": time.process_time() - cpu}


async def probe(rate: float, seconds: float) -> dict[str, Any]:
    """Send evenly, and look for each result about every millisecond."""
    latencies = []
    begun = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0, begun + number / rate - time.perf_counter()))
        started = time.perf_counter()
        task = await echo.kiq(payload(number))
        while not await results.is_result_ready(task.task_id):
            await asyncio.sleep(POLL_SECONDS)
        result = await results.get_result(task.task_id)
        latencies.append(time.perf_counter() - started)
        assert result.return_value == payload(number)
    return {"latencies": latencies}


async def main(what: str, numbers: list[str], answer: str) -> None:
    """Start the broker, do the work, write the answer."""
    await broker.startup()
    report = await (send(int(numbers[0])) if what == "send" else probe(float(numbers[0]), float(numbers[1])))
    Path(answer).write_text(json.dumps(report))
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2:-1], sys.argv[-1]))
