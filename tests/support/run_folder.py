"""The folder of one test run, shared by all its worker processes.

Servers keep their data in it; whoever needs a server first starts it under a lock and leaves its address for others;
every started process is written down in `started.jsonl`, so that `reaper.py` can stop all of them whatever happens.
The folder lies directly under /tmp or /dev/shm, because packaged servers may run under another user and another root.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil

VARIABLE = "BOBRAI_TEST_RUN_FOLDER"
KEEP_VARIABLE = "BOBRAI_TEST_KEEP_FOLDER"
LOWEST_PORT = 12000
ON_DISK, IN_MEMORY = Path("/tmp"), Path("/dev/shm")
# several times what a whole run writes; a container's own /dev/shm has 64 MiB by default
ROOM_IN_MEMORY = 6 * 1024**3
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class RunFolder:
    """Locks, ports, and things made once per run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path = ON_DISK) -> Self:
        """Make a fresh folder and announce it to child processes through the environment."""
        path = Path(tempfile.mkdtemp(prefix="bobrai-test-", dir=parent))
        path.chmod(0o755)
        os.environ[VARIABLE] = str(path)
        return cls(path)

    @classmethod
    def current(cls) -> Self:
        """The folder that this run's controller made."""
        return cls(Path(os.environ[VARIABLE]))

    def folder(self, name: str) -> Path:
        """A folder inside, writable by servers that run under a user of their own."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        return path

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock against all other processes of this run; the kernel frees it when the holder dies."""
        with (self.path / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value that the first caller of the run made under this name; later callers read it."""
        answer = self.path / f"{name}.json"
        if not answer.exists():
            with self.lock(f"once-{name}"):
                if not answer.exists():
                    self.write(answer, make())
        return json.loads(answer.read_text())

    def write(self, file: Path, value: Any) -> None:
        """Write JSON so that a reader sees all of it or nothing."""
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(json.dumps(value))
        draft.rename(file)

    def started(self, **what: Any) -> None:
        """Write down something that must be stopped at the end of the run (see `reaper.py`)."""
        with self.lock("started"), (self.path / "started.jsonl").open("a") as file:
            file.write(json.dumps(what) + "\n")

    def free_port(self) -> int:
        """A port that is free and stays ours: below the range that outgoing connections take theirs from."""
        highest = int(EPHEMERAL_PORTS.read_text().split()[0]) if EPHEMERAL_PORTS.exists() else 32768
        with self.lock("ports"):
            while True:
                port = random.randrange(LOWEST_PORT, max(highest, LOWEST_PORT + 1000))
                taken = self.folder("ports") / str(port)
                if not taken.exists() and _can_listen(port):
                    taken.touch()
                    return port

    def remove(self) -> None:
        """Delete everything, unless BOBRAI_TEST_KEEP_FOLDER asks to keep it for a look at the logs."""
        if not os.environ.get(KEEP_VARIABLE):
            shutil.rmtree(self.path, ignore_errors=True)


def quickest_parent() -> Path:
    """Memory where there is plenty, otherwise the disk: each test's database is 600 files, made and deleted.

    What is to be kept lies on the disk, where it costs nobody memory.
    """
    if os.environ.get(KEEP_VARIABLE) or not os.access(IN_MEMORY, os.W_OK | os.X_OK):
        return ON_DISK
    mount = os.statvfs(IN_MEMORY)
    room = min(mount.f_bavail * mount.f_frsize, psutil.virtual_memory().available)
    return IN_MEMORY if room >= ROOM_IN_MEMORY and not mount.f_flag & os.ST_NOEXEC else ON_DISK


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
