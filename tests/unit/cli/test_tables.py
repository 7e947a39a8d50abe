"""What people see: lines that fit, and nothing that a terminal would obey."""

import pytest

from bobrai.cli import drawing, tables, task_views
from bobrai.cli.asking import Api
from bobrai.cli.contexts import Said
from bobrai.client.models import AttemptFailure
from tests.unit.cli.builders import task


def test_a_pipe_gets_every_cell_whole_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Api(Said()).show(task_views.COLUMNS, [task(status="done", result="x" * 500), task(id=1234)])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "TYPE", "QUEUE", "STATUS", "ATTEMPTS", "CREATED", "OUTCOME"]
    assert first.endswith('  "' + "x" * 500 + '"')
    assert second.startswith("1234  echo  mail   pending")


def test_json_is_one_object_on_each_line_with_times_in_iso(capsys: pytest.CaptureFixture[str]) -> None:
    Api(Said(), as_json=True).show(task_views.COLUMNS, [task(), task(id=18)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith('{"id":17,"type":"echo","queue":"mail","status":"pending","payload":null,')
    assert '"created_at":"2030-01-31T12:00:00Z"' in second


def test_what_a_handler_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = AttemptFailure(attempt=1, type="ValueError", reason="error", message="\x1b[2J\x9bgone\nnext\tü🚀")
    failed = task(status="failed", errors=[evil])
    Api(Said()).show(task_views.COLUMNS, [failed])
    Api(Said()).show_one(failed, task_views.described)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert r"\x1b[2J\x9bgone\nnext\tü🚀" in shown.splitlines()[1]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_lines_of_its_width_with_whole_ids(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    kinds = [tables.Column("ID", is_number=True), tables.Column("TYPE"), tables.Column("OUTCOME")]
    drawing.table(kinds, [["1234567890", "a-type", "y" * 300], ["7", "[b]x[/b]", ":smile:"]])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert max(map(len, (heading, first, second))) <= columns
    assert first.startswith("1234567890  ")
    assert first.rstrip().endswith("…")
    assert "[b]x[/b]" in second
    assert ":smile:" in second
