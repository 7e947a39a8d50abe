"""What is drawn on a terminal: tables in its width and colours, and bars. The only module that imports rich.

In: cells and counts. Out: text with control codes. Import it only where the output is known to be a terminal.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bobrai.cli.tables import Column

_STYLES: Final = {
    "done": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan", "paused": "yellow",
}  # fmt: skip


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Draw rows on standard output, each on one line; what has no room is shortened, but for whole columns."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        widest = max(len(column.title), *(len(row[number]) for row in rows)) if rows else len(column.title)
        drawn.add_column(
            column.title, justify="right" if column.is_number else "left", no_wrap=True, overflow="ellipsis",
            min_width=widest if column.is_whole or column.is_number else min(widest, 8),
        )  # fmt: skip
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    _console(sys.stdout).print(drawn)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error as long as the ``with`` lasts; gives what is told of each step."""
    shown = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=_console(sys.stderr), transient=True, redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip
    with shown:
        bar = shown.add_task(what, total=total)
        yield lambda steps: shown.advance(bar, steps)


def _console(stream: TextIO) -> Console:
    # rich leaves bold text and dim text where NO_COLOR is set; whoever sets it wants neither.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(file=stream, markup=False, highlight=False, emoji=False, color_system=None if plain else "auto")
