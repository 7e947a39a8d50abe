"""The commands by name: where each is declared, what has to be installed for it, and how its errors are told.

In: arguments. Out: an exit code. Only the family of the command that runs is imported (``tasks``, ``projects``,
``servers`` and more), and by it what one room needs.
"""

import importlib
import io
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import click

from bobrai import __version__
from bobrai.cli import exit_codes, streams, tables
from bobrai.domain.errors import BobraiError, ConfigurationError
from bobrai.runtime import signals
from bobrai.telemetry import masking, rendering


class _Home(NamedTuple):
    family: str  # the module of this room that declares it
    extra: str = "api"  # brings the libraries that it needs; empty: it needs none


# As `bobrai --help` shows them.
_SECTIONS: Final[Mapping[str, Mapping[str, _Home]]] = {
    "Tasks and queues": {
        "tasks": _Home("tasks", ""),
        "queues": _Home("queues", ""),
        "types": _Home("queues", ""),
        "workers": _Home("queues", ""),
        "contexts": _Home("configuration", ""),
        "completion": _Home("configuration", ""),
    },
    "Development": {
        "init": _Home("projects", ""),
        "dev": _Home("servers", "dev"),
    },
    "Server": {
        "api": _Home("servers"),
        "dispatcher": _Home("servers"),
        "worker": _Home("servers", "worker"),
        "external-metrics": _Home("servers"),
        "migrate": _Home("servers"),
    },
    "Administration": {
        "smoke": _Home("administration", ""),
        "keys": _Home("administration"),
        "audit": _Home("administration"),
        "rabbitmq-definitions": _Home("administration"),
        "log-level": _Home("administration"),
    },
    "Reference": {
        "settings": _Home("reference"),
        "metrics": _Home("reference"),
        "logs": _Home("reference", ""),
    },
}
_HIDDEN: Final = {"isolated": _Home("servers", "worker"), "fork-server": _Home("servers", "worker")}
_HOMES: Final = {name: home for section in (*_SECTIONS.values(), _HIDDEN) for name, home in section.items()}


def run() -> int:
    """Run the command line and return the exit code.

    An error that was foreseen becomes one line and the code that ``exit_codes`` has for it, mostly 2, a defect its
    traceback and code 1.
    """
    try:
        commands.main(standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 - told as Python would, but for the credentials
        code = signals.code_of_early_end()
        return _told(error) if code is None else code
    return 0


def _told(error: BaseException) -> int:
    """Say why the command ends, and return its exit code."""
    if isinstance(error, click.ClickException):
        streams.say(masking.mask(_shown(error)))
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return 130
    if isinstance(error, BobraiError):
        lines = masking.mask(f"bobrai: {error}").split("\n")
        streams.say("\n".join(map(tables.printable, lines)))  # of handlers and servers: no terminal is to obey it
        return exit_codes.of(error)
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        streams.say(masking.mask(rendering.text(error.code)))
    elif isinstance(error, OSError) and _is_of_echo(error):
        streams.say(f"bobrai: cannot write to standard output: {error.strerror}")
    else:
        streams.say(masking.mask(rendering.traceback_of(error)))
    return 1


def _is_of_echo(error: OSError) -> bool:
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return frames is not None and frames.tb_frame.f_globals.get("__name__") == click.echo.__module__


def _shown(error: click.ClickException) -> str:
    shown = io.StringIO()
    error.show(shown)
    return shown.getvalue().rstrip("\n")


class _Families(click.Group):
    """Finds a command in its family, and says what to install where its libraries are missing."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; only its own family is imported."""
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        family: click.Group = importlib.import_module(f"bobrai.cli.{home.family}").commands
        return family.get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their sections."""
        widest = max(len(name) for section in _SECTIONS.values() for name in section)
        room = formatter.width - 6 - widest
        for title, names in _SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name.ljust(widest), command.get_short_help_str(room)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name; raises ConfigurationError when a library of its extra is missing."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = ctx.invoked_subcommand or ""
            extra = _HOMES[name].extra if name in _HOMES else ""
            if not extra or not error.name or error.name.partition(".")[0] == "bobrai":
                raise  # a defect
            raise ConfigurationError(
                f"'bobrai {name}' needs the server's libraries, of which {error.name!r} is not installed: "
                f"pip install 'bobrai[{extra}]'"
            ) from error


@click.group(cls=_Families, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bobrai")
def commands() -> None:
    """A task-processing service: no accepted task is ever lost."""
