"""What the command line shows on a terminal and in pipes, where it asks, and what a shell completes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bobrai.testing.service import Service, service
from tests.support.command_line import CommandLine
from tests.support.databases import Database
from tests.support.run_folder import RunFolder
from tests.support.terminal import COLUMNS, Terminal

ESCAPE = "\x1b["
Show = Callable[..., Terminal]


@pytest.fixture(scope="module")
def running(module_database: Database) -> Iterator[Service]:
    with service(module_database.url, []) as running:
        yield running


@pytest.fixture
def bobrai(running: Service, tmp_path: Path) -> CommandLine:
    return CommandLine(running.url, tmp_path)


@pytest.fixture
def show(run_folder: RunFolder, bobrai: CommandLine, tmp_path: Path) -> Iterator[Show]:
    """A command on a terminal."""
    opened: list[Terminal] = []

    def show(*arguments: str, **environment: str) -> Terminal:
        command = [sys.executable, "-m", "bobrai", *arguments]
        given = {**bobrai.environment, "COLUMNS": COLUMNS, "TERM": "xterm", **environment}
        opened.append(Terminal(run_folder, command, folder=tmp_path, environment=given))
        return opened[-1]

    yield show
    for terminal in opened:
        terminal.close()


def test_a_table_has_colours_and_fits_on_a_terminal_alone(bobrai: CommandLine, show: Show) -> None:
    long = "x" * 1000
    bobrai.out("tasks", "submit", "echo", "--text", long, "--wait")
    colourful = show("tasks", "list")
    assert colourful.wait() == 0
    assert ESCAPE in colourful.shown
    assert "…" in colourful.shown
    plain = show("tasks", "list", NO_COLOR="1")
    assert plain.wait() == 0
    assert ESCAPE not in plain.shown
    assert max(len(line) for line in plain.shown.splitlines()) <= int(COLUMNS)
    piped = bobrai.out("tasks", "list")
    assert long in piped
    assert ESCAPE not in piped
    assert ESCAPE not in bobrai.run("tasks", "list", environment={"TERM": "xterm"}).out


def test_a_person_is_asked_before_all_that_filters_find_are_cancelled(bobrai: CommandLine, show: Show) -> None:
    assert bobrai.run("tasks", "submit", "echo", "--lines", "--queue", "asked", stdin="1\n2\n").code == 0
    asking = show("tasks", "cancel", "--queue", "asked")
    asking.wait_for("Cancel 2 tasks? [y/N]")
    asking.type("n\n")
    assert asking.wait() == 130
    assert bobrai.out("tasks", "list", "--queue", "asked", "--status", "cancelled", "-o", "json") == ""
    asking = show("tasks", "cancel", "--queue", "asked")
    asking.wait_for("Cancel 2 tasks? [y/N]")
    asking.type("y\n")
    assert asking.wait() == 0
    assert len(bobrai.out("tasks", "list", "--queue", "asked", "--status", "cancelled", "-o", "json").splitlines()) == 2


def test_a_bar_shows_how_far_a_wait_is_and_ctrl_c_ends_it(bobrai: CommandLine, show: Show) -> None:
    first = bobrai.out("tasks", "submit", "echo", "1").strip()
    second = bobrai.out("tasks", "submit", "echo", "2", "--delay", "1h").strip()
    waiting = show("tasks", "wait", first, second)
    waiting.wait_for("1/2")
    assert "\x1b[2K1\r\n" in waiting.shown, "the result is on a line of its own, above the bar"
    waiting.type("\x03")
    assert waiting.wait() == 130
    assert "Traceback" not in waiting.shown


def test_a_reader_that_has_seen_enough_ends_a_list_quietly(bobrai: CommandLine) -> None:
    text = "".join(f'"{"x" * 2000}"\n' for _ in range(100))  # more than a pipe holds
    ids = bobrai.out("tasks", "submit", "echo", "--lines", stdin=text)
    bobrai.out("tasks", "wait", "-", stdin=ids)  # a table shows results
    for options in (("-o", "json"), ()):
        listing = bobrai.started(
            "tasks", "list", "--limit", "100", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert listing.stdout is not None
        assert listing.stdout.readline()
        listing.stdout.close()
        listing.stdout = None
        _, err = listing.communicate(timeout=30)
        assert (listing.returncode, err) == (141, b"")


def test_a_context_says_where_and_as_whom(bobrai: CommandLine, running: Service, tmp_path: Path) -> None:
    made = running.client.create_key("reader", ["tasks:read"])
    file = tmp_path / ".config" / "bobrai" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        f'default_context = "dev"\n[contexts.dev]\nurl = "{running.url}"\n'
        "[contexts.proxied]\nurl = 'https://me:tr0ub4dor@proxy'\n"
        f'[contexts.reader]\nurl = "{running.url}"\napi_key = "{made.key}"\n'
    )
    file.chmod(0o600)
    del bobrai.environment["BOBRAI_URL"]
    listed = bobrai.out("contexts")
    assert "dev" in listed
    assert "in this file" in listed
    as_json = bobrai.out("contexts", "-o", "json")
    for secret in (made.key, "tr0ub4dor"):
        assert secret not in listed + as_json
    assert [json.loads(line)["default"] for line in as_json.splitlines()] == [True, False, False]
    task_id = bobrai.out("tasks", "submit", "echo", "1").strip()
    assert bobrai.out("tasks", "get", task_id, "--context", "reader")
    refused = bobrai.run("tasks", "submit", "echo", "1", environment={"BOBRAI_CONTEXT": "reader"})
    assert (refused.code, made.key in refused.err) == (4, False)
    assert "tasks:submit" in refused.err
    file.chmod(0o644)
    assert bobrai.run("tasks", "list").err == f"bobrai: others can read the key in {file}: chmod 600 {file}\n"


def test_a_shell_completes_commands_statuses_and_names_of_queues(
    bobrai: CommandLine, running: Service, free_port: Callable[[], int]
) -> None:
    running.client.put_queue("completed-by-a-shell")

    def completed(words: str, url: str = running.url) -> list[str]:
        asked = {"_BOBRAI_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv[0] = 'bobrai'; from bobrai.cli import main; main()"],
            env={**bobrai.environment, "BOBRAI_URL": url, **asked}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert completed("bobrai ta") == ["tasks"]
    assert completed("bobrai tasks ca") == ["cancel"]
    assert completed("bobrai tasks list --status p") == ["pending", "processing"]
    assert completed("bobrai tasks list --queue completed-b") == ["completed-by-a-shell"]
    assert completed("bobrai queues pause completed-b") == ["completed-by-a-shell"]
    assert completed("bobrai tasks submit ec") == ["echo"]
    assert completed("bobrai queues pause completed-b", f"http://127.0.0.1:{free_port()}") == []
    for shell in ("bash", "zsh", "fish"):
        assert "_BOBRAI_COMPLETE" in bobrai.out("completion", shell)
    script = bobrai.out("completion", "bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=10, check=True).returncode == 0


def test_a_quick_question_loads_nothing_that_draws_or_serves(bobrai: CommandLine) -> None:
    task_id = bobrai.out("tasks", "submit", "echo", "1").strip()
    code = (
        "import sys; from bobrai.cli import commands; "
        f"sys.argv[1:] = ['tasks', 'get', '{task_id}']; assert commands.run() == 0; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'rich', 'pygments', 'structlog', 'asyncpg', 'starlette', 'pydantic_settings', 'opentelemetry'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=bobrai.environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[0].split() == ["id", task_id]
    assert done.stdout.splitlines()[-1] == ""
