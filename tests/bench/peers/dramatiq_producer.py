"""Dramatiq's producer, a process of its own: `send COUNT ANSWER_FILE` or `probe RATE SECONDS ANSWER_FILE`.

With publisher confirms `send` works in several threads, because each publish then waits for RabbitMQ's disk.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dramatiq.results.errors import ResultMissing

from tests.bench.peers.dramatiq_app import CONFIRMED, broker, echo, results

POLL_SECONDS = 0.001
THREADS = 16 if CONFIRMED else 1


def payload(number: int) -> dict[str, Any]:
    """The same payload that the product gets."""
    return {"n": number, "text": "to be echoed"}


def _send_some(numbers: range) -> None:
    for number in numbers:
        echo.send(payload(number))


def send(count: int) -> dict[str, Any]:
    """Send as fast as it goes."""
    broker.declare_queue(echo.queue_name, ensure=True)
    started_at, cpu = time.time(), time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_send_some, [range(first, count, THREADS) for first in range(THREADS)]))
    return {"started_at": started_at, "ended_at": time.time(), "cpu_seconds": time.process_time() - cpu}


def probe(rate: float, seconds: float) -> dict[str, Any]:
    """Send evenly, and look for each result about every millisecond."""
    latencies = []
    begun = time.perf_counter()
    for number in range(int(rate * seconds)):
        time.sleep(max(0, begun + number / rate - time.perf_counter()))
        started = time.perf_counter()
        message = echo.send(payload(number))
        while True:
            try:
                result = message.get_result(backend=results)
                break
            except ResultMissing:
                time.sleep(POLL_SECONDS)
        latencies.append(time.perf_counter() - started)
        assert result == payload(number)
    return {"latencies": latencies}


if __name__ == "__main__":
    what, *numbers, answer = sys.argv[1:]
    report = send(int(numbers[0])) if what == "send" else probe(float(numbers[0]), float(numbers[1]))
    Path(answer).write_text(json.dumps(report))
    broker.close()
