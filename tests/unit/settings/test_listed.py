"""`bobrai settings`: for people what counts now, masked and within their terminal; for the page the defaults."""

import re
import sys
from pathlib import Path

import pytest

from bobrai.cli.settings_list import listed, table
from bobrai.settings import secret_variables, variables
from bobrai.settings.values import without_secrets
from tests.support.processes import REPOSITORY
from tests.support.run_folder import RunFolder
from tests.support.terminal import Terminal

SECRET = "tr0ub4dor"
COMMAND = "import sys; sys.argv = ['bobrai', 'settings', *sys.argv[1:]]; from bobrai.cli import main; main()"


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Some variables, set for this process as well, and no others."""
    given = {
        "BOBRAI_DATABASE_URL": f"postgresql://me:{SECRET}@db:5432/tasks?password={SECRET}",
        "BOBRAI_DATABASE_PASSWORD": SECRET,
        "BOBRAI_RABBITMQ_URL": f"amqp://me:{SECRET}@one/v,amqps://you:{SECRET}@two:5671",
        "BOBRAI_API_KEY": SECRET,
        "BOBRAI_WORKER_QUEUES": "default,media",
    }
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def test_what_is_set_stands_beside_its_default(environ: dict[str, str]) -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", listed(environ, 80))
    assert "BOBRAI_WORKER_QUEUES = default,media  (default: default)\n" in plain
    assert "BOBRAI_API_BIND = 127.0.0.1:8001  (default)\n" in plain
    assert "BOBRAI_DATABASE_USER  (not set)\n" in plain
    assert {line.split()[0] for line in plain.splitlines() if line.startswith("BOBRAI_")} == set(variables())


def test_secrets_are_masked_and_where_things_are_is_not(environ: dict[str, str]) -> None:
    text = listed(environ, 80)
    assert SECRET not in text
    assert "postgresql://me:***@db:5432/tasks?password=***" in text
    assert "amqp://me:***@one/v,amqps://you:***@two:5671" in text


def test_of_urls_that_fall_apart_at_their_password_nothing_is_shown(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = environ | {"BOBRAI_DATABASE_URL": f"postgresql://me:a/{SECRET}@db/tasks"}
    monkeypatch.setenv("BOBRAI_DATABASE_URL", wrong["BOBRAI_DATABASE_URL"])
    text = listed(wrong, 80)
    assert SECRET not in text
    assert "default,media" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me@x:p@ss@h1:5432,h2/db?user=b@s", "postgresql://me@x:***@h1:5432,h2/db?user=b@s"),
        ("postgresql://me@h1:5432/db?sslmode=disable", "postgresql://me@h1:5432/db?sslmode=disable"),
        ("postgresql:///db?host=/run/x&user=me&password=x&a=b", "postgresql:///db?host=/run/x&user=me&password=***&a=b"),
        ("amqp://h/vhost@prod?name=a@b", "amqp://h/vhost@prod?name=a@b"),
        ("amqp://:pw@h1, amqp://me:a%40b@[::1]:5671/", "amqp://:***@h1, amqp://me:***@[::1]:5671/"),
        ("token", "***"),
    ],
)  # fmt: skip
def test_a_url_loses_its_passwords_alone(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_meanings_fit_the_terminal(columns: int) -> None:
    assert max(len(line) for line in listed({}, columns).splitlines() if line.startswith(" ")) <= columns


def test_every_setting_that_is_a_secret_is_known_as_one() -> None:
    named = {name for name in variables() if name.endswith(("PASSWORD", "_API_KEY", "DATABASE_URL", "DIRECT_URL"))}
    assert secret_variables() == named | {"BOBRAI_RABBITMQ_URL"}


def test_the_page_holds_defaults_whatever_is_set() -> None:
    assert table() in (REPOSITORY / "docs" / "settings.md").read_text()


def test_a_terminal_gets_the_list_and_the_table_when_it_asks(
    run_folder: RunFolder, tmp_path: Path, environ: dict[str, str]
) -> None:
    found = {"PYTHONPATH": str(REPOSITORY / "services"), **environ}
    for argument, shows in (("", "(default: default)"), ("--markdown", "| variable | default | meaning |")):
        command = [sys.executable, "-c", COMMAND, *([argument] if argument else [])]
        terminal = Terminal(run_folder, command, folder=tmp_path, environment=found)
        assert terminal.wait() == 0
        assert shows in terminal.shown
        assert SECRET not in terminal.shown
        terminal.close()
