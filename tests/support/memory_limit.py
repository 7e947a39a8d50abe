"""A cgroup with a memory limit, as a container has one: beyond it the kernel kills whoever is in there.

In: bytes. Out: a group that takes processes, with what they start. With version 2 of cgroups the kernel kills all of
them at once, as Kubernetes sets it up, with version 1 the largest.
"""

import contextlib
import os
import signal
from pathlib import Path

from tests.support.discovery import ServerMissing
from tests.support.eventually import eventually_sync

ROOT = Path("/sys/fs/cgroup")


class CgroupsMissing(ServerMissing):
    """This user may not make the group."""

    def __init__(self, error: OSError) -> None:
        self.server = "cgroups"
        Exception.__init__(self, f"a memory limit needs a cgroup of its own, which root may make: {error}")


class MemoryLimit:
    """The group; ``close`` ends what is in it."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        unified = "memory" in _words(ROOT / "cgroup.controllers")
        self.folder = (ROOT if unified else ROOT / "memory") / name
        try:
            if unified:
                (ROOT / "cgroup.subtree_control").write_text("+memory")
            self.folder.mkdir()
            if unified:
                (self.folder / "memory.oom.group").write_text("1")
                (self.folder / "memory.swap.max").write_text("0")
            (self.folder / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit_bytes))
        except OSError as error:
            raise CgroupsMissing(error) from error

    def add(self, pid: int) -> None:
        """Put a process into the group; what it starts from now on comes with it."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def clear(self) -> None:
        """End what is left in it, as the end of a container does."""

        def is_empty() -> bool:
            pids = [int(pid) for pid in _words(self.folder / "cgroup.procs")]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        eventually_sync(is_empty, message=f"{self.folder} is empty")

    def close(self) -> None:
        """End what is left in it, and remove it."""
        self.clear()
        self.folder.rmdir()


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
