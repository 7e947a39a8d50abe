"""Proves the ground that the other tests stand on: waiting, and the run that starts and ends the servers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.databases import Database
from tests.support.eventually import NeverHappened, eventually, eventually_sync, stays
from tests.support.processes import PYTHONPATH, REPOSITORY
from tests.support.rabbitmq import VirtualHost
from tests.support.reaper import is_alive_pid
from tests.support.run_folder import RunFolder

# --- waiting -------------------------------------------------------------------------------------------------------

# Some of these start a whole run of pytest with servers of its own.
pytestmark = pytest.mark.timeout(150)


async def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, None, "", "there"])
    assert await eventually(lambda: next(values)) == "there"


async def test_eventually_counts_an_exception_as_not_yet() -> None:
    outcomes = iter([OSError("refused"), OSError("refused"), True])

    async def ask() -> bool:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    assert await eventually(ask)


async def test_eventually_reports_the_last_value() -> None:
    with pytest.raises(NeverHappened, match=r"not within 0\.05 s: seven comes; last value \[\]"):
        await eventually(list, 0.05, message="seven comes")


async def test_eventually_reports_and_chains_the_last_exception() -> None:
    def ask() -> bool:
        raise ConnectionRefusedError("nobody home")

    with pytest.raises(NeverHappened, match="ConnectionRefusedError: nobody home") as caught:
        await eventually(ask, 0.05)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(NeverHappened, match="ConnectionRefusedError: nobody home"):
        eventually_sync(ask, 0.05)


async def test_eventually_cuts_off_an_answer_that_hangs() -> None:
    started = time.monotonic()
    with pytest.raises(NeverHappened, match="TimeoutError"):
        await eventually(asyncio.Event().wait, 0.1)
    assert time.monotonic() - started < 2


async def test_stays_fails_as_soon_as_the_condition_is_broken() -> None:
    await stays(lambda: True, 0.05)
    answers = iter([True, True, False])
    with pytest.raises(AssertionError, match="did not stay true"):
        await stays(lambda: next(answers), 5)


# --- the run -------------------------------------------------------------------------------------------------------


def test_ports_are_given_once_and_free(free_port: Callable[[], int]) -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def _pytest(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest on a folder's own tests with our fixtures, as a run of its own."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOBRAI_TEST", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-o", "asyncio_mode=auto",
         str(folder), *arguments],
        capture_output=True, text=True, check=False, cwd=folder, timeout=120,
        env={**clean, "PYTHONPATH": PYTHONPATH, **environment},
    )  # fmt: skip


def test_missing_server_fails_its_tests_loudly(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_it(rabbitmq): pass\ndef test_asking_late(servers): servers.virtual_host()\n"
    )
    nowhere = {"PATH": str(tmp_path), "DOCKER_HOST": "unix:///nowhere"}
    run = _pytest(tmp_path, **nowhere)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "SERVER MISSING: ITS TESTS FAILED" in run.stdout
    assert "rabbitmq >= 4.0 could not be had:" in run.stdout

    allowed = _pytest(tmp_path, BOBRAI_TEST_ALLOW_MISSING="rabbitmq", **nowhere)
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    assert "TESTS NOT RUN, AS ALLOWED" in allowed.stdout
    assert "2 skipped" in allowed.stdout


def test_tests_of_one_group_run_in_one_process(tmp_path: Path) -> None:
    """What they share would be made several times, and a cluster that one of them breaks would be another's."""
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib, pytest\n"
        "@pytest.mark.xdist_group('shared')\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        f"def test_it(number): pathlib.Path({str(tmp_path)!r}, f'ran-in-{{os.getpid()}}').touch()\n"
    )
    run = _pytest(tmp_path, "-n", "2", "--dist", "loadgroup")
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(list(tmp_path.glob("ran-in-*"))) == 1


def test_servers_end_with_their_run_even_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal\n"
        "def test_it(database, run_folder):\n"
        f"    open({str(tmp_path / 'run')!r}, 'w').write(str(run_folder.path))\n"
        f"    open({str(tmp_path / 'started')!r}, 'w').write((run_folder.path / 'started.jsonl').read_text())\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = _pytest(tmp_path)
    assert run.returncode == -signal.SIGKILL, run.stdout + run.stderr
    assert (tmp_path / "started").read_text()
    folder = Path((tmp_path / "run").read_text())
    eventually_sync(lambda: not folder.exists(), 20, message="the run's folder is removed once its servers are gone")
    pids = [
        int(line.partition('"pid": ')[2].partition(",")[0]) for line in (tmp_path / "started").read_text().splitlines()
    ]
    assert not any(is_alive_pid(pid) for pid in pids)


def test_servers_named_in_the_environment_are_used(database: Database, rabbitmq: VirtualHost, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import asyncpg\n"
        "async def test_it(database, rabbitmq, run_folder):\n"
        "    async with database.connect(pooled=True) as connection:\n"
        "        assert await connection.fetchval('SELECT current_database()') == database.name\n"
        "    assert rabbitmq.queues() == {}\n"
        "    assert not (run_folder.path / 'started.jsonl').exists()\n"
    )
    run = _pytest(
        tmp_path,
        BOBRAI_TEST_DATABASE_URL=database.url,
        BOBRAI_TEST_PGBOUNCER_URL=database.pooled_url,
        BOBRAI_TEST_RABBITMQ_URL=rabbitmq.url,
        BOBRAI_TEST_RABBITMQ_MANAGEMENT_URL=rabbitmq.management.url,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_interrupted_run_stops_its_servers(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit an ignored one\n"
        "def test_it(database, run_folder):\n"
        f"    open({str(tmp_path / 'run')!r}, 'w').write(str(run_folder.path))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    run = _pytest(tmp_path)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, run.stdout + run.stderr
    assert not Path((tmp_path / "run").read_text()).exists()


def test_worker_processes_share_what_is_made_once(run_folder: RunFolder) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    name = f"once-test-{run_folder.free_port()}"
    assert [run_folder.once(name, make), run_folder.once(name, make)] == [7, 7]
    assert made == [1]
    read = (
        "import sys; from tests.support.run_folder import RunFolder; print(RunFolder.current().once(sys.argv[1], exit))"
    )
    done = subprocess.run(
        [sys.executable, "-c", read, name], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "7"
