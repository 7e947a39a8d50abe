"""What processes use: CPU seconds and memory of whole process trees, the ended children included.

In: names and the process at the top of each. Out: differences between two snapshots. The kernel counts CPU time of a
process in ticks of 10 ms: a round must last long enough for that to be little.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of its live descendants, and of those that ended and were waited for."""
    root = psutil.Process(pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class CpuMeter:
    """CPU seconds per named process tree since the meter was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def read(self) -> dict[str, float]:
        """Seconds used since the start, per name."""
        return {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}


def memory_mib(pid: int) -> dict[str, float]:
    """Resident (RSS) and proportional (PSS: shared pages divided among their users) MiB of a process tree."""
    root = psutil.Process(pid)
    sums = {"rss": 0, "pss": 0}
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                name = line.partition(":")[0].lower()
                if name in sums:
                    sums[name] += int(line.split()[1])
    return {name: kib / 1024 for name, kib in sums.items()}
