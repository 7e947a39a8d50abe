"""The commands about the command line itself: the contexts of its configuration file, and completion.

In: the file. Out: what it holds, without secrets, and scripts for shells.
"""

import json
import os
from typing import Final

import click
from click.shell_completion import get_completion_class

from bobrai.cli import contexts as files
from bobrai.cli import streams, tables
from bobrai.cli.asking import NOTHING, epilog
from bobrai.cli.tables import Column
from bobrai.telemetry import masking

commands: Final = click.Group()

_VARIABLE: Final = "_BOBRAI_COMPLETE"
_COLUMNS: Final = (
    Column("NAME", is_whole=True),
    Column("DEFAULT"),
    Column("URL", is_whole=True),
    Column("KEY"),
    Column("CA"),
)


@commands.command("contexts", epilog=epilog("bobrai contexts", "bobrai tasks list --context production"))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def contexts(output: str) -> None:
    """Show the contexts of the configuration file, without secrets.

    The file is ~/.config/bobrai/config.toml, or what BOBRAI_CONFIG names; docs/cli.md says what stands in it.
    """
    file = files.read(os.environ)
    if not file.contexts:
        streams.say(f"bobrai: there are no contexts in {file.path}")
        return
    rows = [
        {
            "name": context.name,
            "default": context.name == file.default,
            "url": masking.mask(context.url),
            "key": "in this file" if context.api_key else context.api_key_file or None,
            "ca": context.ca or None,
        }
        for context in file.contexts.values()
    ]
    if output == "json":
        for row in rows:
            click.echo(json.dumps(row))
        return
    tables.fitted(
        _COLUMNS, [["yes" if value is True else str(value or NOTHING) for value in row.values()] for row in rows]
    )


@commands.command(
    "completion",
    epilog=epilog(
        'eval "$(bobrai completion bash)"           # in ~/.bashrc',
        'eval "$(bobrai completion zsh)"            # in ~/.zshrc',
        "bobrai completion fish > ~/.config/fish/completions/bobrai.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options, and names of queues and types."""
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"There is none for {shell}.")
    click.echo(made(commands, {}, "bobrai", _VARIABLE).source())
