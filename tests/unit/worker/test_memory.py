"""What the container's limit leaves for isolated tasks, and how it is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bobrai.worker import memory
from bobrai.worker.memory import Plan
from tests.support.eventually import eventually

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "resident", "expected"),
    [
        (None, 0, 60, Plan(8)),
        (4000, 100, 100, Plan(8, 437, 3500)),
        (512, 65, 65, Plan(3, 131, 395)),
        (512, 300, 100, Plan(1, 160, 160)),
        (200, 190, 100, Plan(1, 116, 116)),  # one always, however tight it is
    ],
)
def test_what_the_limit_leaves_is_divided(limit: int | None, used: int, resident: int, expected: Plan) -> None:
    found = memory.plan(8, limit=limit and limit * MIB, used=used * MIB, resident=resident * MIB)
    assert (found.places, _mib(found.share_bytes), _mib(found.whole_bytes)) == (
        expected.places, expected.share_bytes, expected.whole_bytes
    )  # fmt: skip


def _mib(count: int | None) -> int | None:
    return count and count // MIB


def group(folder: Path, limit: str, used: int, *, version: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, used_name = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        2: ("memory.max", "memory.current"),
    }[version]
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text(f"{used}\n")
    prefix = "total_" if version == 1 else ""
    stat = f"active_file 1\ninactive_file 1\n{prefix}active_file {cache - 1}\n{prefix}inactive_file 1\nanon 5\n"
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inside", [True, False], ids=["inside a container", "outside of it"])
def test_the_limit_is_read_without_what_the_kernel_can_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, *, inside: bool
) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/pods/one\n" if version == 1 else "0::/pods/one\n")
    root = tmp_path / "fs" / ("memory" if version == 1 else "")
    group(root if inside else root / "pods" / "one", str(500 * MIB), 300 * MIB, version=version, cache=100 * MIB)
    if not inside:
        group(root, "max" if version == 2 else str(2**63 - 4096), 900 * MIB, version=version)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "cgroup")
    found = memory.container()
    assert found is not None
    assert (found.limit, found.used()) == (500 * MIB, 200 * MIB)


def test_the_smallest_limit_on_the_way_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup").write_text("0::/pods/one\n")
    group(tmp_path / "pods" / "one", "700", 10, version=2)
    group(tmp_path / "pods", "600", 10, version=2)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "cgroup")
    found = memory.container()
    assert found is not None
    assert found.limit == 600


def test_without_cgroups_there_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "none")
    assert memory.container() is None


@pytest.mark.parametrize(("ends_as_one", "expected"), [("1", (1000 * MIB, 400 * MIB)), ("0", None)])
def test_a_container_without_a_limit_that_the_kernel_ends_as_one_has_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_as_one: str, expected: tuple[int, int] | None
) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "meminfo").write_text("MemTotal: 1024000 kB\nMemFree: 1 kB\nMemAvailable: 614400 kB\n")
    group(tmp_path, "max", 900 * MIB, version=2)
    (tmp_path / "memory.oom.group").write_text(f"{ends_as_one}\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    found = memory.container()
    assert (found and (found.limit, found.used())) == expected


async def test_the_memory_of_a_session_is_that_of_all_its_processes() -> None:
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'x = b\"x\" * 40_000_000; print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        assert memory.session_bytes()[leader.pid] > 40_000_000
        os.killpg(leader.pid, 9)
    await eventually(lambda: not memory.session_bytes().get(leader.pid))


def test_what_a_fork_shares_is_not_its_own_and_a_peak_begins_anew() -> None:
    program = (
        "import os\n"
        "from bobrai.worker import memory\n"
        "shared = b'x' * 60_000_000\n"
        "ends, tells = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.read(ends, 1)\n"
        "kept = b'x' * 30_000_000\n"
        "del kept\n"
        "before = memory.peak_bytes()\n"
        "memory.begin_peak()\n"
        "print(memory.private_bytes(child), memory.resident_bytes(child), before - memory.peak_bytes())\n"
        "os.kill(child, 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    private, resident, fell = map(int, done.stdout.split())
    assert private < 30_000_000
    assert resident > 60_000_000
    assert fell > 20_000_000


def test_a_process_that_may_take_no_more_gets_a_memory_error() -> None:
    program = (
        "from bobrai.worker import memory\n"
        "memory.allow(30_000_000)\n"
        "kept = b'x' * 20_000_000\n"
        "try:\n"
        "    b'x' * 100_000_000\n"
        "except MemoryError:\n"
        "    memory.allow(None)\n"
        "    print(len(b'x' * 100_000_000))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (ended.stdout, ended.stderr) == ("100000000\n", "")
