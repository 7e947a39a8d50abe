"""What handlers leave behind is theirs: children, threads, tasks and sockets never reach into the worker's own life."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually, eventually_sync
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.own_handlers import reached, submit, with_handlers
from tests.support.processes import PYTHONPATH, Process, Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.reaper import is_alive_pid

HANDLERS = """
import asyncio, faulthandler, multiprocessing, os, pathlib, signal, socket, subprocess, sys, threading, time
from bobrai import Context, task

HERE = pathlib.Path(__file__).parent
OWN = socket.socketpair()
kept = []

def fork_and_live() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(7)
    return child

@task("fork-on-loop")
async def fork_on_loop() -> dict[str, object]:
    return {"child": fork_and_live(), "own": [os.fstat(end.fileno()).st_ino for end in OWN]}

@task("fork-in-thread")
def fork_in_thread() -> dict[str, object]:
    return {"child": fork_and_live(), "own": [os.fstat(end.fileno()).st_ino for end in OWN]}

ENDS = [lambda: 0, lambda: sys.exit(), lambda: sys.exit(5), lambda: sys.exit("said"), lambda: 1 / 0]

@task("ends-in-child")
async def ends_in_child(payload: int) -> int:
    child = os.fork()
    if child == 0:
        return ENDS[payload]()
    return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

@task("ends-in-thread-child")
def ends_in_thread_child(payload: int) -> int:
    child = os.fork()
    if child == 0:
        return ENDS[payload]()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

@task("forks-in-executor")
async def forks_in_executor() -> int:
    return os.waitstatus_to_exitcode(os.waitpid(await asyncio.to_thread(os.fork), 0)[1])

@task("awaits-in-child")
async def awaits_in_child() -> int:
    child = os.fork()
    if child == 0:
        await asyncio.sleep(600)
    return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

@task("processes")
def processes() -> list[object]:
    with multiprocessing.Pool(2) as pool:
        squares = pool.map(abs, [-1, -2])
    process = multiprocessing.Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()  # before it can have done anything
    process.join()
    return [squares, process.exitcode, subprocess.run(["sh", "-c", "exit 3"]).returncode]

@task("pool-until-timeout")
async def pool_until_timeout() -> None:
    pool = multiprocessing.Pool(2)
    kept.append(pool)
    (HERE / "pool").write_text(" ".join(str(each.pid) for each in pool._pool))
    await asyncio.sleep(600)

@task("leaves-everything")
async def leaves_everything() -> int:
    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGTERM)  # which Python does not hear of
    loop = asyncio.get_running_loop()
    kept.append(loop.create_task(deaf()))
    kept.append(loop.run_in_executor(None, time.sleep, 600))
    kept.append(asyncio.ensure_future(asyncio.to_thread(threading.Event().wait)))
    threading.Thread(target=threading.Event().wait).start()
    process = multiprocessing.Process(target=time.sleep, args=(600,))
    process.start()
    return process.pid

@task("background")
def background() -> None:
    os.system("sleep 600 & echo $! >" + str(HERE / "background"))
"""


@pytest.fixture
def service(processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path) -> Processes:
    """Processes with addresses, and a dispatcher and handlers for their workers."""
    with_handlers(processes, database, rabbitmq, tmp_path / "leaving_tasks.py", HANDLERS)
    return processes


async def result_of(database: Database, type_: str, payload: object = None) -> Any:
    """Submit a task and return its result once it is final."""
    timeout_seconds = 0.5 if "timeout" in type_ else 300
    ids = await submit(database, type_, payload, timeout_seconds=timeout_seconds)
    await reached(database, ids, "done", "failed", timeout=30)
    return json.loads(await database.fetchval("SELECT result::text FROM tasks WHERE id = $1", ids[0]) or "null")


def sockets_of(pid: int) -> set[int]:
    """The inodes of the sockets that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def answers(process: Process, number: signal.Signals) -> bool:
    """Whether a function of the process is called when it gets the signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def ends_by(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
    eventually_sync(lambda: not is_alive_pid(pid), 20, message=f"{pid} ends by {number.name}")


async def test_forked_children_have_default_signals_and_none_of_our_sockets(
    service: Processes, database: Database
) -> None:
    receiver = OtlpReceiver()
    # as sent by its own thread: a connection that waits for the next spans is one more that a child must not have
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "2000",
        "no_proxy": "127.0.0.1",
    }
    worker = service.start("worker", environment=traces)
    await result_of(database, "echo", "x")
    await eventually(receiver.spans, 20, message="spans have been sent")
    for type_, number in (("fork-on-loop", signal.SIGTERM), ("fork-in-thread", signal.SIGINT)):
        found = await result_of(database, type_)
        assert sockets_of(found["child"]) & sockets_of(worker.pid) == set(found["own"])
        ends_by(found["child"], number)
    assert await result_of(database, "processes") == [[1, 2], -signal.SIGTERM, 3]
    assert not [event for event in worker.log_events() if event["event"] == "process.stopping"]
    assert worker.is_ready()
    receiver.close()


async def test_a_child_that_comes_back_from_its_handler_ends_as_a_program_and_is_no_second_worker(
    service: Processes, database: Database
) -> None:
    worker = service.start("worker")
    for type_ in ("ends-in-child", "ends-in-thread-child"):
        assert [await result_of(database, type_, end) for end in range(5)] == [0, 0, 5, 1, 1]
    assert await result_of(database, "forks-in-executor") == 0
    assert await result_of(database, "awaits-in-child") == 1
    printed = worker.log_text()
    assert (printed.count("said\n"), printed.count("ZeroDivisionError: division by zero\n")) == (2, 2)
    assert worker.is_ready()


async def test_nothing_that_handlers_left_keeps_a_drained_worker(
    service: Processes, database: Database, tmp_path: Path
) -> None:
    worker = service.start("worker")
    child = await result_of(database, "leaves-everything")
    await result_of(database, "pool-until-timeout")
    pool = [int(pid) for pid in (tmp_path / "pool").read_text().split()]
    await eventually(lambda: answers(worker, signal.SIGINT), 20, message="the worker has its signals back")
    worker.terminate()
    assert await worker.exited(30) == 0
    assert [event["event"] for event in worker.log_events()][-1] == "worker.stopped"
    await eventually(lambda: not any(map(is_alive_pid, pool)), 20, message="the pool's processes end with the worker")
    psutil.Process(child).kill()  # an ordinary child is its owner's


async def test_a_program_left_in_the_background_leaves_the_port_to_the_next_worker(
    service: Processes, database: Database, tmp_path: Path
) -> None:
    worker = service.start("worker")
    await result_of(database, "background")
    pid = int((tmp_path / "background").read_text())
    worker.kill()
    assert psutil.pid_exists(pid)
    service.start("worker", port=worker.port)
    ends_by(pid, signal.SIGKILL)


def test_no_descriptor_of_ours_is_inherited_by_a_program(service: Processes) -> None:
    for process in (service.start("worker"), service.start("api"), service.all[0]):
        eventually_sync(lambda process=process: process.is_ready(), 20, message="ready")
        assert inheritable(process) == []


def inheritable(process: Process) -> list[str]:
    """What a program started by the process would get besides the three standard streams."""
    found = []
    for entry in Path(f"/proc/{process.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            flags = next(line for line in entry.read_text().splitlines() if line.startswith("flags:"))
            if int(entry.name) > 2 and not int(flags.split()[1], 8) & os.O_CLOEXEC:
                found.append(str(Path(f"/proc/{process.pid}/fd/{entry.name}").readlink()))
    return found


# Sends SIGTERM to its own process in the middle of the imports of a command.
EARLY = textwrap.dedent(
    """
    import os, signal, sys

    class Early:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "click":
                sys.meta_path.remove(Early)
                os.kill(os.getpid(), signal.SIGTERM)

    sys.meta_path.insert(0, Early)
    """
)


@pytest.mark.parametrize(
    ("command", "code"),
    [(["api"], 0), (["dispatcher"], 0), (["worker"], 0), (["external-metrics"], 0), (["dev"], 0),
     (["migrate", "--wait"], 143), (["smoke"], 143)],
)  # fmt: skip
def test_a_signal_counts_from_the_first_import_of_every_command(
    processes: Processes, tmp_path: Path, command: list[str], code: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(EARLY)
    path = f"{tmp_path}{os.pathsep}{PYTHONPATH}"
    process = processes.start(*command, environment={"PYTHONPATH": path}, wait_ready=False)
    assert process.wait(30) == code
    assert process.log_text() == ""


@pytest.mark.parametrize("statement", ["time.sleep(600)", "threading.Event().wait()", "endless()"])
def test_a_signal_while_handlers_are_imported_ends_the_worker(
    processes: Processes, tmp_path: Path, statement: str
) -> None:
    (tmp_path / "slow_tasks.py").write_text(
        textwrap.dedent(
            f"""
            import signal, threading, time

            signal.signal(signal.SIGINT, signal.SIG_IGN)

            def endless():
                while True:
                    try:
                        time.sleep(600)
                    except BaseException:
                        pass

            print("importing", flush=True)
            {statement}
            """
        )
    )
    urls = {"BOBRAI_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "BOBRAI_RABBITMQ_URL": "amqp://127.0.0.1:1"}
    worker = processes.start("worker", "--handlers", "slow_tasks", environment=urls, wait_ready=False)
    eventually_sync(lambda: "importing" in worker.log_text(), 30, message="the import has begun")
    worker.terminate()
    assert worker.wait(30) == 0


def test_as_process_1_the_command_splits_in_two(processes: Processes, tmp_path: Path) -> None:
    space = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*space, "true"], capture_output=True, check=False).returncode != 0:
        space[1:1] = ["--user", "--map-root-user"]
    (tmp_path / "telling_tasks.py").write_text("import os\nos._exit(40 + os.getpid())\n")
    urls = {"BOBRAI_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "BOBRAI_RABBITMQ_URL": "amqp://127.0.0.1:1"}
    command = [*space, sys.executable, "-m", "bobrai", "worker", "--handlers", "telling_tasks"]
    assert processes.run(command, name="worker", environment=urls).wait(30) == 42
