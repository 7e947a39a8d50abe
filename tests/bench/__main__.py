"""`python -m tests.bench`: starts the servers, does the wanted measurements one after the other, reports, stops all.

What is measured and how long: `options.py`. What each measurement is: the `measure_*.py` beside it.
"""

import asyncio
import sys
import time

from tests.bench import (
    machine,
    measure_access,
    measure_end_to_end,
    measure_full_tables,
    measure_idle,
    measure_places,
    measure_submit,
)
from tests.bench.options import Options, parse
from tests.bench.peers import measure as measure_peers
from tests.bench.product import open_product
from tests.bench.report import Report
from tests.bench.servers import Servers, open_servers
from tests.bench.usage import memory_mib

_started = time.monotonic()


def say(what: str) -> None:
    """Tell on standard error what happens now."""
    print(f"{time.monotonic() - _started:6.1f} s  {what}", file=sys.stderr, flush=True)


async def run(servers: Servers, options: Options, report: Report) -> None:
    """All wanted measurements, each result into the report as soon as it is there."""
    if options.wants("echo", "single", "batch"):
        say("submit: bare echo, single POSTs, batches")
        report.rounds |= await measure_submit.measure(servers, options)
    if options.wants("access"):
        say("access: single POSTs open, with a key, with a token")
        report.rounds |= await measure_access.measure(servers, options)
    if options.wants("places"):
        say("places: event loop, thread, process")
        report.rounds |= await measure_places.measure(servers, options)
    if options.wants("end-to-end", "idle", "memory", "full-tables"):
        await _whole(servers, options, report)
    for peer in measure_peers.PEERS:
        if options.wants(peer.name):
            say(f"peer: {peer.name}")
            report.peers.append(await measure_peers.measure(servers, options, peer))


async def _whole(servers: Servers, options: Options, report: Report) -> None:
    async with open_product(servers) as product:
        product.start("api", "dispatcher", "worker")
        for kind in ("batch", "single"):
            say(f"warm-up, {kind}")
            await measure_end_to_end.one_round(product, kind, options.warm_up)
        for kind in ("batch", "single") if options.wants("end-to-end") else ():
            say(f"end to end, {kind}")
            report.rounds[f"end-to-end {kind}"] = await measure_end_to_end.measure(product, options, kind)
        if options.wants("memory"):
            report.memory = {name: memory_mib(process.pid) for name, process in product.running.items()}
        if options.wants("idle"):
            say("idle latency")
            report.idle = await measure_idle.measure(product, options)
        if options.wants("full-tables"):
            say(f"full tables: {options.full_rows:,} finished and {options.full_rows:,} delayed tasks")
            full = await measure_full_tables.measure(product, options)
            report.rounds |= {f"full-tables {kind}": rounds for kind, rounds in full.items()}


def main(arguments: list[str]) -> int:
    """Measure, print, write; what was measured before an error is reported too."""
    options = parse(arguments)
    say("starting PostgreSQL and RabbitMQ")
    with open_servers() as servers:
        report = Report(machine.describe(servers, arguments))
        try:
            asyncio.run(run(servers, options, report))
        finally:
            print("\n".join(report.lines()))
            print(f"\nwritten: {report.write()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
