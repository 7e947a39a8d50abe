"""People and scripts operate a running service by the command line."""

import asyncio
import json
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from bobrai import PermanentFailure
from bobrai.handlers import registry
from bobrai.handlers.registry import Registry
from bobrai.testing.service import Service, service
from tests.support.command_line import CommandLine
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy

LINES = 12_000


class Letter(BaseModel):
    to: str


@pytest.fixture(scope="module")
def running(module_database: Database) -> Iterator[Service]:
    """One service for all tests, each of which has queues or keys of its own."""
    own = Registry()

    @own.task("letter", queue="mail")
    async def letter(payload: Letter) -> str:
        return f"to {payload.to}"

    @own.task("copy", queue="bulk")
    async def copy(payload: int) -> int:
        return payload

    @own.task("fails")
    async def fails(payload: str) -> None:
        raise PermanentFailure(payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "default", own)
        with service(module_database.url, []) as running:
            yield running


@pytest.fixture
def bobrai(running: Service, tmp_path: Path) -> CommandLine:
    return CommandLine(running.url, tmp_path)


async def stored(running: Service, queue: str) -> Counter[int]:
    """How often each payload was stored."""
    connection = await asyncpg.connect(running.database_url)
    try:
        rows = await connection.fetch("SELECT payload::text::int AS n FROM tasks WHERE queue = $1", queue)
        return Counter(row["n"] for row in rows)
    finally:
        await connection.close()


def objects(text: str) -> list[dict[str, Any]]:
    """One object of each line."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_task_is_submitted_waited_for_and_shown(bobrai: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "ada.json").write_text('{"to": "ada"}')
    first = bobrai.out("tasks", "submit", "letter", '{"to": "world"}').strip()
    second = bobrai.out("tasks", "submit", "letter", "--file", "ada.json", "--priority", "9").strip()
    third = bobrai.out("tasks", "submit", "echo", "-", "--text", "--queue", "mail", stdin="hello").strip()
    assert int(first) < int(second) < int(third)
    assert bobrai.out("tasks", "wait", second, first) == '"to ada"\n"to world"\n'
    assert bobrai.out("tasks", "wait", "-", stdin=f"{first}\n{third}") == '"to world"\n"hello"\n'
    assert bobrai.out("tasks", "submit", "echo", "--wait", "--file", "-", stdin="[1, 2.0]") == "[1,2.0]\n"
    assert '"to": "world"' in bobrai.out("tasks", "get", first)
    assert "has ended" in bobrai.out("tasks", "explain", first)

    heading, *rows = bobrai.out("tasks", "list", "--queue", "mail").splitlines()
    assert heading.split()[:4] == ["ID", "TYPE", "QUEUE", "STATUS"]
    assert [row.split()[0] for row in rows] == [third, second, first]
    newest, older = objects(bobrai.out("tasks", "list", "--type", "letter", "-o", "json", "--after", "1h"))
    assert (newest["id"], newest["priority"], newest["result"]) == (int(second), 9, "to ada")
    assert older == objects(bobrai.out("tasks", "get", first, "-o", "json"))[0]
    assert len(bobrai.out("tasks", "list", "--limit", "2", "-o", "json").splitlines()) == 2


def test_exit_codes_tell_what_happened_in_one_line(bobrai: CommandLine, free_port: Callable[[], int]) -> None:
    failed = bobrai.run("tasks", "submit", "fails", "--text", "for\ngood", "--wait")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.endswith("(fails) failed: bobrai.domain.errors.PermanentFailure: for\\ngood\n")
    later = bobrai.out("tasks", "submit", "echo", "1", "--delay", "1h").strip()
    cases = [
        (("tasks", "get", "999999"), 3, "bobrai: task 999999: Task not found"),
        (("tasks", "get", later, "--url", f"http://127.0.0.1:{free_port()}"), 5, "bobrai: no answer from http://127.0"),
        (("queues", "show", "nope"), 3, "bobrai: Queue not found"),
        (("tasks", "list", "--api-key", "bobrai_nobodyhasit0_x"), 4, "bobrai: "),
        (("tasks", "wait", later, "--timeout", "0.1s"), 124, f"bobrai: task {later} is still pending"),
        (("tasks", "replay", later), 1, f"bobrai: task {later} is pending"),
        (("tasks", "submit", "letter", "{}"), 2, "bobrai: /payload/to: "),
        (("tasks", "submit", "echo", "hello"), 2, "bobrai: PAYLOAD is not JSON: 'hello'"),
    ]
    for arguments, code, told in cases:
        done = bobrai.run(*arguments)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
        assert done.err.startswith(told)
        assert "nobodyhasit0_x" not in done.err
    mixed = bobrai.run("tasks", "cancel", "999999", later)
    assert (mixed.code, mixed.out) == (3, f"{later} cancelled\n")


def test_many_are_cancelled_and_replayed_by_filters_and_by_standard_input(bobrai: CommandLine) -> None:
    ids = bobrai.out("tasks", "submit", "copy", "--lines", "--delay", "1h", stdin="1\n2\n3\n")
    refused = bobrai.run("tasks", "cancel", "--status", "pending", "--queue", "bulk")
    assert refused.code == 2
    assert "The filters find 3 tasks: say --yes to cancel them all." in refused.err
    done = bobrai.out("tasks", "cancel", "--status", "pending", "--queue", "bulk", "--yes")
    assert sorted(done.splitlines()) == [f"{each} cancelled" for each in ids.split()]
    assert bobrai.out("tasks", "cancel", "--queue", "bulk", "--yes") == ""
    assert len(bobrai.out("tasks", "replay", "-", stdin=ids).splitlines()) == 3
    assert bobrai.out("tasks", "wait", *ids.split()) == "1\n2\n3\n"
    assert bobrai.run("tasks", "cancel").code == 2
    careless = bobrai.run("tasks", "replay", "--queue", "bulk", "--yes")
    assert (careless.code, "--status failed, cancelled or done" in careless.err) == (2, True)


def test_queues_types_and_workers_are_shown_and_steered(bobrai: CommandLine) -> None:
    limits = ("--rate", "10/s", "--per-key", "/account", "--key-concurrency", "2", "--key-weight", "big=3")
    (limited,) = objects(bobrai.out("queues", "limit", "mail", *limits, "-o", "json"))
    wished = {"key": "/account", "concurrency": 2, "rate": None, "burst": None, "weights": {"big": 3}}
    assert limited["limits"] == {"concurrency": None, "rate": "10/s", "burst": None, "per_key": wished}
    assert "rate=10/s" in bobrai.out("queues", "show", "mail")
    assert "mail     paused" in bobrai.out("queues", "pause", "default", "mail")
    paused = {each["name"] for each in objects(bobrai.out("queues", "-o", "json")) if each["paused"]}
    assert paused == {"default", "mail"}
    assert bobrai.out("queues", "resume", "default", "mail").count("active") == 2
    assert objects(bobrai.out("queues", "limit", "mail", "--none", "-o", "json"))[0]["limits"] is None
    assert bobrai.run("queues", "limit", "mail").code == 2
    assert "letter" in bobrai.out("types")
    schema = json.loads(bobrai.out("types", "show", "letter", "--schema", "payload"))
    assert schema["required"] == ["to"]
    (worker,) = objects(bobrai.out("workers", "-o", "json"))
    assert sorted(worker["queues"]) == ["bulk", "default", "mail"]
    assert socket.gethostname() in bobrai.out("workers")


def test_lines_that_are_no_payload_are_named_before_anything_is_submitted(bobrai: CommandLine) -> None:
    text = "1\n{bad\n\n" + "2\n" * 3 + "NaN\n"
    batch = ("tasks", "submit", "echo", "--lines", "--queue", "lines")
    done = bobrai.run(*batch, stdin=text)
    assert (done.code, done.out) == (2, "")
    assert [line[:20] for line in done.err.splitlines()] == [
        "bobrai: line 2 is no", "bobrai: line 7 is no", "bobrai: 2 lines are "
    ]  # fmt: skip
    assert bobrai.out("tasks", "list", "--queue", "lines", "-o", "json") == ""
    some = bobrai.run(*batch, "--skip-bad", stdin=text)
    assert (some.code, len(some.out.splitlines())) == (0, 4)
    refused = bobrai.run("tasks", "submit", "letter", "--lines", stdin='{"to": "a"}\n\n{"too": 1}\n')
    assert refused.code == 2
    assert "  line 3: /payload/to: " in refused.err


def test_a_key_that_was_used_for_other_lines_is_told(bobrai: CommandLine) -> None:
    batch = ("tasks", "submit", "echo", "--lines", "--idempotency-key", "may")
    ids = bobrai.out(*batch, stdin="1\n2\n")
    assert bobrai.out(*batch, stdin="1\n2\n") == ids
    done = bobrai.run(*batch, stdin="1\n3\n")
    assert (done.code, done.out) == (2, "")
    assert "lines 1 to 2, or the options, were others in an earlier run with the key 'may'" in done.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
async def test_a_batch_that_was_interrupted_goes_on_without_a_line_doubled_or_lost(
    bobrai: CommandLine,
    running: Service,
    tcp_proxy: Callable[[str, int], TcpProxy],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    name = f"batch-{number.name.lower()}"  # of a queue that nobody consumes
    (tmp_path / "lines").write_text("".join(f"{n}\n" for n in range(LINES)))
    proxy = tcp_proxy("127.0.0.1", int(running.url.rpartition(":")[2]))
    proxy.latency(0.3)  # so that it is in the middle of it
    batch = ("tasks", "submit", "echo", "--lines", "--file", "lines", "--idempotency-key", name, "--queue", name)
    url = f"http://127.0.0.1:{proxy.port}"

    first = bobrai.started(*batch, "--url", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await eventually(lambda: stored(running, name), message="some of it is stored")
    first.send_signal(number)
    out, err = await asyncio.to_thread(first.communicate, timeout=30)
    assert first.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in err
    assert number == signal.SIGKILL or f"the same command with --idempotency-key {name} stores".encode() in err
    before = len(out.split())
    assert before < LINES

    again = bobrai.run(*batch)
    assert (again.code, again.err.count("\n")) == (0, 1), again.err  # that nobody consumes the queue, once
    ids = again.out.split()
    assert (ids[:before] == out.decode().split(), len(set(ids))) == (True, LINES)
    assert (await stored(running, name) == Counter(range(LINES))) is True
    shown = objects(bobrai.out("tasks", "get", ids[0], ids[-1], "-o", "json"))
    assert [each["payload"] for each in shown] == [0, LINES - 1]
