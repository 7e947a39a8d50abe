"""When a worker should be replaced by a fresh one: after a number of tasks, or when its memory has grown."""

import os
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
_MIB = 1024 * 1024


def memory_mib() -> float:
    """Return the resident memory of this process; on systems without /proc its peak."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MIB if sys.platform == "darwin" else peak / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def reason_to(*, ended: int, max_tasks: int, max_memory_mib: int) -> str:
    """Return why this worker should drain and exit, or an empty string; a limit of 0 is none."""
    if max_tasks and ended >= max_tasks:
        return f"it has run {ended} tasks of at most {max_tasks}"
    if max_memory_mib and (used := memory_mib()) > max_memory_mib:
        return f"it uses {used:.0f} MiB of at most {max_memory_mib}"
    return ""
