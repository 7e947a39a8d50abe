"""What is drawn on a terminal: tables in its width and colours, and bars. The only module that imports rich.

In: cells and counts. Out: text with control codes. Import it only where the output is known to be a terminal.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, TextIO

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bobrai.cli import tables
from bobrai.cli.tables import Column

_GAP: Final = 2  # characters between columns
_NARROWEST: Final = 6  # characters of a column that gives way
_STYLES: Final = {
    "done": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan", "paused": "yellow",
}  # fmt: skip


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Draw rows on standard output, each on one line; what has no room is shortened, but for whole columns."""
    console = _console(sys.stdout)
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, _widths(columns, rows, console.width), strict=True):
        justify: JustifyMethod = "right" if column.is_number else "left"
        drawn.add_column(column.title, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(drawn)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return how wide each column is: the widest gives way, and none of numbers or whole cells does."""
    cells = zip(*[[column.title for column in columns], *rows], strict=True)
    widths = [min(max(map(cell_len, each)), room) for each in cells]
    giving = [number for number, column in enumerate(columns) if not (column.is_whole or column.is_number)]
    for _ in range(sum(widths) + _GAP * (len(columns) - 1) - room):
        widest = max(giving, key=lambda number: widths[number], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error as long as the ``with`` lasts; gives what is told of each step."""
    shown = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=_console(sys.stderr), transient=True, redirect_stdout=False,
    )  # fmt: skip
    above = tables.printed_by(lambda text: shown.console.print(text, soft_wrap=True))
    with shown, above if sys.stdout.isatty() else nullcontext():
        bar = shown.add_task(what, total=total)
        yield lambda steps: shown.advance(bar, steps)


def _console(stream: TextIO) -> Console:
    # rich leaves bold text and dim text where NO_COLOR is set; whoever sets it wants neither.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(file=stream, markup=False, highlight=False, emoji=False, color_system=None if plain else "auto")
