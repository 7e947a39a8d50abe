"""How a command ends and what it says then, whatever it could not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bobrai.domain.limits import QUEUE_RULE

ENDS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
except BaseException as error:
    raise RuntimeError("told to end") from error
"""


def bobrai(*arguments: str, stdout: int = subprocess.PIPE, cwd: Path | None = None) -> tuple[int, str]:
    """Run a command, and return its exit code and what it said on standard error."""
    environment = {
        **os.environ,
        "BOBRAI_DATABASE_URL": "postgresql://me:tr0ub4dor@127.0.0.1:1/x",
        "BOBRAI_RABBITMQ_URL": "amqp://127.0.0.1:1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bobrai", *arguments],
        env=environment, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["settings", "--help"])
def test_output_that_cannot_be_written_is_said_in_one_line(command: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = bobrai(command, stdout=full)
    finally:
        os.close(full)
    assert (code, said) == (1, "bobrai: cannot write to standard output: No space left on device\n")


def test_a_handlers_module_that_exits_is_one_line_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "exiting_tasks.py").write_text("import sys\nsys.exit('not with tr0ub4dor')")
    code, said = bobrai("worker", "--handlers", "exiting_tasks", cwd=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot be imported: SystemExit: not with ***" in said


def test_a_signal_during_imports_ends_a_worker_well_whatever_a_module_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "wrapping_tasks.py").write_text(ENDS)
    assert bobrai("worker", "--handlers", "wrapping_tasks", cwd=tmp_path) == (0, "")


@pytest.mark.parametrize("name", ["my queue", "a/b", "Media", "🚀", "-x"])
@pytest.mark.parametrize("command", [("worker", "--queues"), ("rabbitmq-definitions", "--queue")])
def test_a_queue_that_no_task_can_have_is_refused_with_its_name_and_the_rule(
    command: tuple[str, str], name: str
) -> None:
    code, said = bobrai(*command, name)
    assert (code, said.count("\n")) == (2, 1)
    assert f"{name!r} cannot be the name of a queue: {QUEUE_RULE}" in said


def test_no_queue_at_all_is_refused_with_the_rule() -> None:
    code, said = bobrai("worker", "--queues", ",")
    assert (code, said) == (2, f"bobrai: BOBRAI_WORKER_QUEUES: must name a queue: {QUEUE_RULE}\n")


@pytest.mark.parametrize(
    ("declares", "told"),
    [
        ('"thumbnail", queue="Media"', f"'Media' cannot be the name of a queue (type 'thumbnail'): {QUEUE_RULE}"),
        ('"my type"', "'my type' cannot be the name of a type: 1 to 100 letters"),
    ],
)
def test_a_handler_with_a_name_that_no_client_can_write_is_refused_in_one_line(
    tmp_path: Path, declares: str, told: str
) -> None:
    (tmp_path / "misnamed_tasks.py").write_text(f"from bobrai import task\n\n@task({declares})\ndef f() -> None: ...")
    code, said = bobrai("worker", "--handlers", "misnamed_tasks", cwd=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert told in said
