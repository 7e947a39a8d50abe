"""The first signal asks, the second one ends at once; checkpoints kill only when armed."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bobrai.runtime.checkpoint import CHECKPOINTS, arm, checkpoint
from bobrai.runtime.lifecycle import Stop

PROGRAM = """
import asyncio, sys
from bobrai.runtime.lifecycle import Stop
from bobrai.telemetry import logs

async def main():
    logs.configure(level="error", format="json", process="test")
    stop = Stop()
    stop.install()
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    if {hangs}:
        await asyncio.Event().wait()
    print(stop.reason, flush=True)

asyncio.run(main())
"""


def _start(*, hangs: bool) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(hangs=hangs)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_drains_and_exits_with_0(number: signal.Signals) -> None:
    with _start(hangs=False) as process:
        process.send_signal(number)
        printed, _ = process.communicate(timeout=20)
        assert (printed, process.returncode) == (f"draining\n{number.name}\n", 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_drain_that_hangs(number: signal.Signals, code: int) -> None:
    with _start(hangs=True) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "draining\n"
        process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == code


def test_a_terminal_that_closes_hangs_up_more_than_once_and_the_drain_goes_on() -> None:
    """The shell tells its jobs, and the kernel tells them again when the shell has ended."""
    with _start(hangs=True) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 143


def test_a_process_that_was_told_to_outlive_its_terminal_does() -> None:
    """nohup starts it with SIGHUP ignored."""
    ignoring = f"import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv({sys.executable!r}, {{}})"
    program = ignoring.format([sys.executable, "-c", PROGRAM.format(hangs=False)])
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.communicate(timeout=20)[0] == "draining\nSIGTERM\n"


async def test_the_first_reason_is_kept() -> None:
    stop = Stop()
    assert not await stop.wait_for(0.001)
    stop.request("one")
    stop.request("two")
    assert await stop.wait_for(60)
    await asyncio.wait_for(stop.wait(), 1)
    assert (stop.reason, stop.is_set()) == ("one", True)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_armed_checkpoint_kills_and_every_other_one_passes(name: str) -> None:
    program = (
        "from bobrai.runtime.checkpoint import CHECKPOINTS, arm, checkpoint\n"
        f"arm({name!r})\n"
        f"[checkpoint(other) for other in CHECKPOINTS if other != {name!r}]\n"
        f"print('alive', flush=True); checkpoint({name!r}); print('survived')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("alive\n", -signal.SIGKILL)


def test_without_an_armed_checkpoint_all_pass() -> None:
    arm("")
    for name in CHECKPOINTS:
        checkpoint(name)


def test_an_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        arm("nowhere")


LEAVING = """
import asyncio, os, signal, sys, threading
from bobrai.runtime import signals

signals.install(serves=True)
signals.listen(lambda number: print("heard", number.name, flush=True), lambda number: None)
signals.end_within({seconds}, 0)
print("up", flush=True)
{leaves}
signals.leave({code})
"""
BLOCKED = "threading.Thread(target=threading.Event().wait).start()"


@contextlib.contextmanager
def _leaving(leaves: str, code: int = 0, seconds: float = 600) -> Iterator["subprocess.Popen[str]"]:
    program = LEAVING.format(leaves=leaves, code=code, seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "leaves",
    [
        BLOCKED,
        "import atexit; atexit.register(threading.Event().wait)",
        "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor().submit(threading.Event().wait)",
        "threading.Event().wait()",
    ],
    ids=["thread", "atexit", "executor", "main thread"],
)
def test_a_process_leaves_with_its_code_whatever_is_left_behind(leaves: str) -> None:
    blocks_before_its_code_is_known = leaves == "threading.Event().wait()"
    with _leaving(leaves, code=0 if blocks_before_its_code_is_known else 7, seconds=0.5) as process:
        assert process.wait(20) == (0 if blocks_before_its_code_is_known else 7)


def test_a_process_that_leaves_does_what_was_registered_for_its_end() -> None:
    with _leaving(f"import atexit; atexit.register(print, 'the end'); {BLOCKED}") as process:
        assert process.communicate(timeout=20)[0] == "the end\n"


def test_a_process_that_leaves_answers_signals() -> None:
    # Not in one wait for a lock: CPython misses a signal that comes just before it.
    with _leaving("import time\nwhile True: time.sleep(0.01)") as process:
        assert process.stdout is not None
        process.terminate()
        assert process.stdout.readline() == "heard SIGTERM\n"
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
