"""Where the command line asks, and as whom: what comes before what, and which key goes where."""

from pathlib import Path

import pytest

from bobrai.cli import contexts
from bobrai.cli.contexts import Said
from bobrai.domain.errors import ConfigurationError

FILE = """
default_context = "here"

[contexts.here]
url = "http://here:1"
api_key = "key-of-here"

[contexts.there]
url = "https://there"
api_key_file = "there.key"
ca = "authorities.pem"

[contexts.open]
url = "http://open:1"
"""
URL, KEY, CONTEXT = "BOBRAI_URL", "BOBRAI_API_KEY", "BOBRAI_CONTEXT"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    key = tmp_path / "there.key"
    key.write_text("key-of-there\n")
    key.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("said", "environ", "url", "key"),
    [
        pytest.param(Said(), {}, "http://here:1", "key-of-here", id="the default context"),
        pytest.param(Said(context="there"), {}, "https://there", "key-of-there", id="a context by a flag"),
        pytest.param(Said(), {CONTEXT: "there"}, "https://there", "key-of-there", id="a context by the environment"),
        pytest.param(
            Said(context="open"), {CONTEXT: "there", URL: "http://e:1"}, "http://open:1", "", id="a flag before both"
        ),
        pytest.param(Said(), {URL: "http://e:1", KEY: "e"}, "http://e:1", "e", id="the environment before the default"),
        pytest.param(Said(), {KEY: "e"}, "http://here:1", "e", id="a key of the environment before the context's"),
        pytest.param(
            Said(context="there"),
            {KEY: "e"},
            "https://there",
            "key-of-there",
            id="its key before it",
        ),
        pytest.param(Said("http://f:1", "f"), {URL: "http://e:1", KEY: "e"}, "http://f:1", "f", id="flags before all"),
        pytest.param(Said("http://f:1"), {}, "http://f:1", "", id="no key of a context for another URL"),
        pytest.param(Said(context="there", url="http://f:1"), {}, "http://f:1", "", id="not even when both are said"),
        pytest.param(Said("http://here:1/"), {}, "http://here:1/", "key-of-here", id="its key for its URL"),
    ],
)
def test_flags_come_before_the_environment_before_the_context_before_the_default(
    file: Path, said: Said, environ: dict[str, str], url: str, key: str
) -> None:
    reach = contexts.resolve(said, {"BOBRAI_CONFIG": str(file), **environ})
    assert (reach.url, reach.api_key) == (url, key)
    assert "key-of" not in repr(reach)


def test_files_of_a_context_lie_beside_the_configuration(file: Path) -> None:
    reach = contexts.resolve(Said(context="there"), {"BOBRAI_CONFIG": str(file)})
    assert reach.ca == str(file.parent / "authorities.pem")
    (file.parent / "there.key").unlink()
    with pytest.raises(ConfigurationError, match=r"'there': api_key_file cannot be read: .*there\.key"):
        contexts.resolve(Said(context="there"), {"BOBRAI_CONFIG": str(file)})


def test_without_a_file_the_default_is_this_machine(tmp_path: Path) -> None:
    reach = contexts.resolve(Said(), {"XDG_CONFIG_HOME": str(tmp_path)})
    assert (reach.url, reach.api_key, reach.ca) == (contexts.DEFAULT_URL, "", "")


def test_the_file_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(contexts.path_of_file({})) == "/home/ada/.config/bobrai/config.toml"
    assert str(contexts.path_of_file({"XDG_CONFIG_HOME": "/xdg"})) == "/xdg/bobrai/config.toml"
    assert str(contexts.path_of_file({"XDG_CONFIG_HOME": "relative"})) == "/home/ada/.config/bobrai/config.toml"
    assert str(contexts.path_of_file({"BOBRAI_CONFIG": "~/b.toml", "XDG_CONFIG_HOME": "/x"})) == "/home/ada/b.toml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("contexts = [", "cannot be read: "),
        ("context = 1", "there is no 'context', only contexts, default_context"),
        ("contexts = 1", "contexts must be tables, such as [contexts.production]"),
        ("default_context = 1", "default_context must be a text"),
        ('default_context = "x"', "no context 'x' in "),
        ("[contexts]\na = 1", "[contexts.a] must be a table with a url"),
        ("[contexts.a]\nca = 'x'", "[contexts.a] lacks a url"),
        ("[contexts.a]\nurl = 1", "[contexts.a]: url must be a text"),
        (
            "[contexts.a]\nurl = 'x'\ntoken = 'y'",
            "[contexts.a]: there is no 'token', only url, api_key, ",
        ),
        ("[contexts.a]\nurl = 'x'\napi_key = 'y'\napi_key_file = 'z'", "[contexts.a] has both"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        contexts.read({"BOBRAI_CONFIG": str(path)})
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_and_a_context_that_are_named_must_be_there(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="BOBRAI_CONFIG: there is no file"):
        contexts.read({"BOBRAI_CONFIG": str(file.parent / "other.toml")})
    for said, environ in ((Said(context="x"), {}), (Said(), {CONTEXT: "x"})):
        with pytest.raises(ConfigurationError, match=r"no context 'x' in .*, which has: here, there, open"):
            contexts.resolve(said, {"BOBRAI_CONFIG": str(file), **environ})


@pytest.mark.parametrize("name", ["config.toml", "there.key"])
def test_a_key_that_others_can_read_is_warned_of(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    contexts.resolve(Said(context="there"), {"BOBRAI_CONFIG": str(file)})
    assert capsys.readouterr().err == ""
    path = file.parent / name
    path.chmod(0o640)
    contexts.resolve(Said(context="there"), {"BOBRAI_CONFIG": str(file)})
    assert capsys.readouterr().err == f"bobrai: others can read the key in {path}: chmod 600 {path}\n"
