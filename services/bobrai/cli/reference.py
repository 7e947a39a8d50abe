"""The commands that print what there is: settings, metrics, events.

In: nothing but the names that the rooms declare; ``settings`` shows the environment beside its own. Out: text.
"""

import shutil
import sys
from typing import Final

import click

commands: Final = click.Group()


@commands.command("settings")
@click.option(
    "--markdown/--list",
    default=None,
    help="A table with defaults alone, or a list with what counts now.  [the list on a terminal, the table elsewhere]",
)
def settings_(*, markdown: bool | None) -> None:
    """Print every environment variable with its value, its default and its meaning; secrets are masked."""
    from bobrai.cli.settings_list import listed, table
    from bobrai.settings import environment, load

    if markdown is None:
        markdown = not sys.stdout.isatty()
    if markdown:
        click.echo(table())
        return
    click.echo(listed(environment(), shutil.get_terminal_size().columns))
    load()  # below the list it is said what of it is wrong


@commands.command("metrics")
def metrics_() -> None:
    """Print every metric with its labels and who exports it, as a Markdown table."""
    from bobrai.telemetry import exposition

    click.echo(exposition.table())


@commands.command("logs")
def logs_() -> None:
    """Print every event that is logged, as a Markdown table."""
    from bobrai.telemetry import events

    click.echo(events.table())
