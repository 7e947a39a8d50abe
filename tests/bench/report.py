"""Everything that was measured becomes one table to read and one JSON file to keep.

In: a Report that the run fills. Out: lines with figure, aim and ratio; then CPU time per task and process, the
steadiest figures on a noisy machine.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.peers.measure import PeerResult
from tests.bench.rounds import Rounds

FOLDER = Path(__file__).parents[2] / "bench-results"
TITLES = {
    "echo": "(a) bare Starlette echo",
    "single": "(b) single POSTs, 64 connections",
    "batch": "(c) batch submits of 500",
    "end-to-end batch": "(d) end to end, batch submits",
    "end-to-end single": "(d) end to end, single POSTs",
    "full-tables batch": "(g) the same, full tables, batch",
    "full-tables single": "(g) the same, full tables, single",
    "access open": "(h) single POSTs, no credential",
    "access key": "(h) single POSTs, API key",
    "access token": "(h) single POSTs, RS256 token",
    "place loop": "(i) end to end, in the event loop",
    "place thread": "(i) end to end, in threads",
    "place process": "(i) end to end, in processes",
}
# CPU µs per task over all processes
CPU_AIMS = {"end-to-end batch": 230, "end-to-end single": 450}
# times the best peer
PEER_AIMS = {"end-to-end batch": 5.0, "end-to-end single": 2.5}
# of the same requests without a credential
ACCESS_AIMS = {"access key": 0.95, "access token": 0.85}
IDLE_AIM_MS = 8.0
SUBMIT_AIM = 0.55
WORKER_AIM_MIB = 80.0


@dataclass
class Report:
    """What a run found, filled as it goes."""

    about: dict[str, Any]
    rounds: dict[str, Rounds] = field(default_factory=dict)
    idle: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    peers: list[PeerResult] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The table."""
        rows = [self._rate_row(name, rounds) for name, rounds in self.rounds.items()]
        for peer in self.peers:
            cost = f"{peer.rounds.total_cpu_microseconds():.0f}"
            rows.append((f"{peer.name}: {peer.setting}", f"{peer.rounds.rate:,.0f}/s", cost, peer.promise))
        if self.idle:
            rows.append(("(e) idle: submit to result", _milliseconds(self.idle), "", f"aim p50 <= {IDLE_AIM_MS:g} ms"))
            for stage, median in self.idle["stages"].items():
                rows.append((f"    {stage.replace('_', ' ')}", f"p50 {median:.1f} ms", "", ""))
        rows += [(f"    idle: {peer.name}", _milliseconds(peer.idle), "", "") for peer in self.peers]
        for name, memory in self.memory.items():
            aim = f"aim < {WORKER_AIM_MIB:g} MiB" if name == "worker" else ""
            rows.append((f"(f) memory: {name}", f"RSS {memory['rss']:.0f}, PSS {memory['pss']:.0f} MiB", "", aim))
        rows += [
            (f"    memory: {peer.name}", f"RSS {peer.memory['rss']:.0f}, PSS {peer.memory['pss']:.0f} MiB", "", "")
            for peer in self.peers
        ]
        return [*_table(("measured", "figure", "CPU µs/task", "ratio and aim"), rows), "", *self._cpu_lines()]

    def _rate_row(self, name: str, rounds: Rounds) -> tuple[str, ...]:
        cpu = f"{rounds.total_cpu_microseconds():.0f}"
        if name in CPU_AIMS:
            cpu += f" (aim {CPU_AIMS[name]})"
        return TITLES[name], f"{rounds.rate:,.0f}/s", cpu, self._ratio(name, rounds)

    def _ratio(self, name: str, rounds: Rounds) -> str:
        if name == "single" and (echo := self.rounds.get("echo")):
            return f"{rounds.rate / echo.rate:.0%} of (a), aim {SUBMIT_AIM:.0%}"
        if name in ACCESS_AIMS and (free := self.rounds.get("access open")):
            cost = rounds.against(free, lambda each: each.cpu_microseconds()["api"])
            return (
                f"{rounds.against(free):.1%} of no credential, aim {ACCESS_AIMS[name]:.0%}; CPU of the API {cost:.2f} x"
            )
        if name.startswith("place") and rounds is not (loop := self.rounds["place loop"]):
            more = rounds.total_cpu_microseconds() - loop.total_cpu_microseconds()
            return f"{rounds.against(loop):.2f} x the event loop; {more:.0f} µs of CPU more per task"
        if name.startswith("full-tables") and (empty := self.rounds.get(name.replace("full-tables", "end-to-end"))):
            cost = rounds.total_cpu_microseconds() / empty.total_cpu_microseconds()
            return f"rate {rounds.rate / empty.rate:.2f} x, cost {cost:.2f} x the empty run"
        if name in PEER_AIMS and self.peers:
            times = ", ".join(f"{rounds.rate / peer.rounds.rate:.1f} x {peer.name}" for peer in self.peers)
            return f"{times}; aim {PEER_AIMS[name]:g} x"
        return ""

    def _cpu_lines(self) -> list[str]:
        runs = [(TITLES[name], rounds) for name, rounds in self.rounds.items()]
        runs += [(peer.name, peer.rounds) for peer in self.peers]
        columns = list(dict.fromkeys(name for _, rounds in runs for name in rounds.cpu_microseconds()))
        rows = []
        for title, rounds in runs:
            costs = rounds.cpu_microseconds()
            cells = [f"{costs[column]:.0f}" if column in costs else "" for column in columns]
            client = rounds.client_cpu_microseconds()
            total = f"{rounds.total_cpu_microseconds():.0f}"
            rows.append((title, *cells, total, f"{client:.0f}" if client else ""))
        return _table(("CPU µs per task", *columns, "total", "(client)"), rows) if rows else []

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            **self.about,
            "rounds": {name: rounds.as_json() for name, rounds in self.rounds.items()},
            "idle_ms": self.idle,
            "memory_mib": self.memory,
            "peers": {peer.name: peer.as_json() for peer in self.peers},
        }

    def write(self) -> Path:
        """Write the JSON file and return its path."""
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")
        return path


def _milliseconds(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {values[name]:.1f}" for name in ("p50", "p95", "p99")) + " ms"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return [f"| {' | '.join(line)} |" for line in ruled]
