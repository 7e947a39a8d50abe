"""The first process of a container reaps orphans, takes no one else's children, and ends as the command ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually_sync

# A process that orphans come to, as they come to process 1, is as good as that.
BEGIN = """
import ctypes, os, select, signal, sys
from bobrai.runtime.first_process import fork_below

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
fork_below(lambda: signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)))
"""
CHILDREN = """
import asyncio, json, multiprocessing, os, subprocess, uvloop

for _ in range(60):
    subprocess.run(["sh", "-c", "(exit 0) & exit 0"])

async def within() -> int:
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 4")
    return await process.wait()

def by_itself() -> None:
    os._exit(5)

process = multiprocessing.Process(target=by_itself)
process.start()
process.join()
child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], {})
codes = [
    subprocess.run(["sh", "-c", "exit 3"]).returncode, uvloop.run(within()), process.exitcode,
    os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]),
]
print(json.dumps([os.getppid(), codes]), flush=True)
"""


def start(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def states_of_children(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]


def test_orphans_are_reaped_and_everybody_gets_the_exit_codes_of_its_own_children() -> None:
    with start(CHILDREN + "sys.stdin.read()") as process:
        parent, codes = json.loads(line_of(process))
        assert (parent, codes) == (process.pid, [3, 4, 5, 6])
        eventually_sync(lambda: len(states_of_children(process.pid)) == 1, 20, message="only the command is left")
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("program", "code"),
    [("sys.exit(2)", 2), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL), ("os.abort()", 134)],
)
def test_it_ends_as_the_command_ends(program: str, code: int) -> None:
    with start(program) as process:
        assert process.wait(20) == code


def test_it_hands_signals_on() -> None:
    # a read that never returns would not let Python answer a signal that came just before it
    with start("print('up', flush=True)\nwhile not select.select([sys.stdin], [], [], 0.1)[0]: pass") as process:
        assert line_of(process) == "up"
        process.terminate()
        assert process.wait(20) == 5
