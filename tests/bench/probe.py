"""The latency probe, a process of its own: `python -m tests.bench.probe PORT RATE SECONDS ANSWER_FILE`.

In: a service that is otherwise idle. It submits RATE tasks a second, evenly, and reads each back about every
millisecond until GET shows the result. Out: JSON with the seconds from the first byte of the submit to the answer that
shows the result, one per task.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from tests.bench.http import Client, request
from tests.bench.load import task

POLL_SECONDS = 0.001
TASK_TIMEOUT_SECONDS = 30


async def one(client: Client, number: int) -> float:
    """Submit one task and wait for its result; returns the seconds it took."""
    new = task(number)
    started = time.perf_counter()
    status, body = await client.call(request("POST", "/api/v1/tasks", new))
    if status != b"201":
        raise ValueError(f"answer {status.decode()}: {body[:500].decode()}")
    look = request("GET", f"/api/v1/tasks/{json.loads(body)['task_id']}")
    async with asyncio.timeout(TASK_TIMEOUT_SECONDS):
        while True:
            status, body = await client.call(look)
            if status != b"200":
                raise ValueError(f"answer {status.decode()}: {body[:500].decode()}")
            if b'"done"' in body and (seen := json.loads(body))["status"] == "done":
                seconds = time.perf_counter() - started
                if seen["result"] != new["payload"]:
                    raise ValueError(f"a wrong result: {body[:500].decode()}")
                return seconds
            await asyncio.sleep(POLL_SECONDS)


async def run(port: int, rate: float, seconds: float) -> list[float]:
    """Submit evenly, wait for all."""
    client = Client(port)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        probes = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(started + number / rate - loop.time())
            probes.append(group.create_task(one(client, number)))
    client.close()
    return [probe.result() for probe in probes]


def main() -> None:
    """Read the arguments, run, write the answer."""
    port, rate, seconds, answer = sys.argv[1:]
    latencies = uvloop.run(run(int(port), float(rate), float(seconds)))
    Path(answer).write_text(json.dumps({"latencies": latencies}))


if __name__ == "__main__":
    main()
