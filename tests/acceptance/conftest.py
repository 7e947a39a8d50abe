"""Where `bobrai dev` keeps its data in these tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder


@pytest.fixture
def data_folder(processes: Processes, run_folder: RunFolder) -> Iterator[Path]:
    """Where `bobrai dev` keeps its data in this test: not below pytest's own folder, which is closed to other users.

    The embedded server runs as one when we are root.
    """
    folder = run_folder.folder(f"dev-{run_folder.free_port()}") / "data"
    processes.environment["BOBRAI_DATA_DIR"] = str(folder)
    yield folder
    processes.close()
    # a service that was killed, or a test that failed, leaves its database running
    postmaster = folder / "postgresql" / "postmaster.pid"
    if postmaster.exists():
        server = psutil.Process(int(postmaster.read_text().splitlines()[0]))
        server.send_signal(signal.SIGQUIT)
        eventually_sync(lambda: not is_alive(server), message="the embedded database has ended")
