"""Where the command line finds the API and the key for it: flags, the environment, and a file with named contexts.

In: what was said on the command line, ``BOBRAI_*`` variables, and ``config.toml``. Out: a Reach. Nothing is asked of
anybody here. A key of the file goes to the URL that stands beside it, and never to another one.
"""

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bobrai.cli import streams
from bobrai.domain.errors import ConfigurationError

DEFAULT_URL: Final = "http://127.0.0.1:8001"
_OF_FILE: Final = {"contexts": dict, "default_context": str}
_OF_CONTEXT: Final = ("url", "api_key", "api_key_file", "ca")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Context:
    """One installation by name; ``api_key_file`` and ``ca`` are paths."""

    name: str
    url: str
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    ca: str = ""

    def key(self) -> str:
        """Return its key, empty without one; raises ConfigurationError for a file that cannot be read."""
        if not self.api_key_file:
            return self.api_key
        path = Path(self.api_key_file)
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the context {self.name!r}: api_key_file cannot be read: {error}") from error
        _warn_of_others(path)
        return key


@dataclass(frozen=True, slots=True)
class File:
    """What stands in the file; nothing without one."""

    path: Path
    contexts: Mapping[str, Context] = field(default_factory=dict)
    default: str = ""

    def context(self, name: str, said_by: str) -> Context:
        """Return a context; raises ConfigurationError where there is none of this name."""
        if name not in self.contexts:
            known = ", ".join(self.contexts) or "none"
            raise ConfigurationError(f"{said_by}: no context {name!r} in {self.path}, which has: {known}")
        return self.contexts[name]


@dataclass(frozen=True, slots=True)
class Said:
    """What the command line says; None where it says nothing."""

    url: str | None = None
    api_key: str | None = None
    context: str | None = None
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the API is, and who asks."""

    url: str
    api_key: str = field(repr=False)
    ca: str


def path_of_file(environ: Mapping[str, str]) -> Path:
    """Return where the file is, be there one or not."""
    if named := environ.get("BOBRAI_CONFIG"):
        return Path(named).expanduser()
    base = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path("~/.config").expanduser()  # others are to be ignored
    return folder / "bobrai" / "config.toml"


def read(environ: Mapping[str, str]) -> File:
    """Read the file; raises ConfigurationError for one that is wrong, or that BOBRAI_CONFIG names and is not there."""
    path = path_of_file(environ)
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if environ.get("BOBRAI_CONFIG"):
            raise ConfigurationError(f"BOBRAI_CONFIG: there is no file {path}") from error
        return File(path)
    except (OSError, ValueError) as error:  # tomllib's and the codec's errors are ValueErrors
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    file = _checked(path, said)
    if any(context.api_key for context in file.contexts.values()):
        _warn_of_others(path)
    return file


def resolve(said: Said, environ: Mapping[str, str]) -> Reach:
    """Return where to ask and as whom: flags, then the environment, then the context, then the defaults.

    A context that a flag names comes before the environment, as flags do. Raises ConfigurationError.
    """
    file = read(environ)
    flagged = file.context(said.context, "--context") if said.context else None
    url = said.url or (None if flagged else environ.get("BOBRAI_URL", "").strip() or None)
    context = flagged or _unflagged(file, environ)
    # A key that was made for one URL is nothing for another.
    own = context if context and (url is None or url.rstrip("/") == context.url.rstrip("/")) else None
    key = said.api_key
    if key is None and flagged and own:
        key = own.key() or None
    if key is None:
        key = environ.get("BOBRAI_API_KEY", "").strip() or None
    if key is None and own:
        key = own.key()
    return Reach(url or (context.url if context else DEFAULT_URL), key or "", said.ca or (own.ca if own else ""))


def _unflagged(file: File, environ: Mapping[str, str]) -> Context | None:
    if name := environ.get("BOBRAI_CONTEXT", "").strip():
        return file.context(name, "BOBRAI_CONTEXT")
    return file.context(file.default, "default_context") if file.default else None


def _checked(path: Path, said: Mapping[str, Any]) -> File:
    for name, value in said.items():
        if name not in _OF_FILE:
            raise ConfigurationError(f"{path}: there is no {name!r}, only {', '.join(_OF_FILE)}")
        if not isinstance(value, _OF_FILE[name]):
            words = "a text" if _OF_FILE[name] is str else "tables, such as [contexts.production]"
            raise ConfigurationError(f"{path}: {name} must be {words}")
    contexts = {name: _context(path, name, value) for name, value in said.get("contexts", {}).items()}
    file = File(path, contexts, said.get("default_context", ""))
    if file.default:
        file.context(file.default, "default_context")
    return file


def _context(path: Path, name: str, said: object) -> Context:
    where = f"{path}: [contexts.{name}]"
    if not isinstance(said, dict):
        raise ConfigurationError(f"{where} must be a table with a url")
    for member, value in said.items():
        if member not in _OF_CONTEXT:
            raise ConfigurationError(f"{where}: there is no {member!r}, only {', '.join(_OF_CONTEXT)}")
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{where}: {member} must be a text that is not empty")
    if "url" not in said:
        raise ConfigurationError(f"{where} lacks a url")
    if "api_key" in said and "api_key_file" in said:
        raise ConfigurationError(f"{where} has both api_key and api_key_file: keep one")
    files = {each: str(path.parent / Path(said[each]).expanduser()) for each in ("api_key_file", "ca") if each in said}
    return Context(name, said["url"], said.get("api_key", ""), **files)


def _warn_of_others(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & _OTHERS:
        streams.say(f"bobrai: others can read the key in {path}: chmod 600 {path}")
