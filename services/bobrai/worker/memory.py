"""How much memory this process has, and may have: what /proc and the container's cgroup say.

In: nothing. Out: bytes, and a plan of how many isolated tasks fit beside the worker. Where nothing can be read, as on
other systems than Linux, there is no limit. A container without one shares the machine's memory, and when that is
short Kubernetes has the kernel end the container as a whole, so that the machine's size is its limit then.
"""

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_MACHINE: Final = Path("/proc/meminfo")
_ENDS_AS_ONE: Final = "memory.oom.group"  # version 2 only
_LIMITS: Final = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
_FILE_PAGES: Final = ("active_file", "inactive_file", "total_active_file", "total_inactive_file")
_NO_LIMIT: Final = 1 << 60  # what version 1 of cgroups says for none is near the largest number
MARGIN: Final = 0.1  # of the limit: for what the worker's other tasks take meanwhile
_SMALLEST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How many isolated tasks may run at once, and the bytes of each process then, or of a single one.

    None: nobody has set a limit.
    """

    places: int
    share_bytes: int | None = None
    whole_bytes: int | None = None


def plan(places: int, *, limit: int | None, used: int, resident: int) -> Plan:
    """Divide what is left of the limit: a process is as large as the worker, ``resident``, and its task's share again.

    There is always one place: a task that is never tried would never end.
    """
    if limit is None:
        return Plan(places)
    room = max(limit - used - int(limit * MARGIN), resident + _SMALLEST_BYTES)
    fitting = max(1, min(places, room // (2 * resident)))
    return Plan(fitting, room // fitting, room)


@dataclass(frozen=True, slots=True)
class Container:
    """What limits the memory of this process and all others beside it."""

    limit: int
    read_used: Callable[[], int]

    def used(self) -> int:
        """Return the bytes in use now, without the pages of files, which the kernel gives up before it kills."""
        try:
            return max(0, self.read_used())
        except (OSError, ValueError, KeyError):
            return 0


def container() -> Container | None:
    """Return the container that has the smallest limit; None without any."""
    folders = list(_folders())
    found = [each for each in map(_read, folders) if each is not None]
    if not found and any(map(_ends_as_one, folders)):
        return _machine()
    return min(found, key=lambda each: each.limit, default=None)


def _folders() -> Iterator[Path]:
    """Return the cgroups that this process is in; inside a container most of their names exist outside only."""
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in {"", "memory"}:
                root = _CGROUPS / controllers
                folder = root / name.lstrip("/")
                yield root
                while folder != root and root in folder.parents:
                    yield folder
                    folder = folder.parent


def _read(folder: Path) -> Container | None:
    for limit_name, used_name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number either
            limit = int((folder / limit_name).read_text(encoding="ascii"))
            if limit < _NO_LIMIT:
                return Container(limit, partial(_used, folder, used_name))
    return None


def _used(folder: Path, name: str) -> int:
    return int((folder / name).read_text(encoding="ascii")) - _file_pages(folder)


def _ends_as_one(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return (folder / _ENDS_AS_ONE).read_text(encoding="ascii").strip() == "1"
    return False


def _machine() -> Container | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit = _machine_bytes("MemTotal")
        return Container(limit, lambda: limit - _machine_bytes("MemAvailable"))
    return None


def _machine_bytes(name: str) -> int:
    lines = _MACHINE.read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024


def _file_pages(folder: Path) -> int:
    lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    found = {name: int(value) for name, value in (line.split() for line in lines) if name in _FILE_PAGES}
    own, total = _FILE_PAGES[:2], _FILE_PAGES[2:]
    return sum(found.get(name, 0) for name in (total if total[0] in found else own))


def resident_bytes(process: int | str = "self") -> int:
    """Return the resident memory of a process; on systems without /proc the peak of this one."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def private_bytes(process: int) -> int:
    """Return the resident memory that a process shares with no other; 0 where that cannot be known."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
    return 0


def begin_peak() -> None:
    """Forget the peak so far of this process."""
    with contextlib.suppress(OSError):  # proc_pid_clear_refs(5)
        _CLEAR_REFS.write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Return the most resident memory of this process since `begin_peak`; 0 where that cannot be known."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(_STATUS.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) * 1024
    return 0


def session_bytes() -> dict[int, int]:
    """Return the resident memory of every session that this process sees, by the id of its leader."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - it is done often
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                # proc_pid_stat(5): after the name in brackets, which may hold anything, comes field 3
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - the same
                    fields = file.read().rpartition(b")")[2].split()
                session = int(fields[3])
                found[session] = found.get(session, 0) + int(fields[21]) * _PAGE
    return found


def allow(spare_bytes: int | None) -> None:
    """Let this process reserve so many bytes more than now; None: as many as it likes. Beyond is a MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if spare_bytes is not None:
        soft = _reserved_bytes() + spare_bytes
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _reserved_bytes() -> int:
    try:
        return int(_STATM.read_text(encoding="ascii").split()[5]) * _PAGE
    except OSError:
        return resident_bytes()


def offer_first() -> None:
    """When memory is short, let the kernel end this process before its worker."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
