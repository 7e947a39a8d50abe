"""Rows for people: drawn on a terminal, and elsewhere plain text in columns as wide as their widest cell."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; one that ``is_whole`` is never shortened, nor is one of numbers, on the right."""

    title: str
    is_number: bool = False
    is_whole: bool = False


_printers: list[Callable[[str], None]] = [click.echo]


def put(text: str) -> None:
    """Print a line on standard output, above a bar where one is drawn on the same terminal."""
    _printers[-1](text)


@contextmanager
def printed_by(printer: Callable[[str], None]) -> Iterator[None]:
    """Have lines printed so as long as the ``with`` lasts."""
    _printers.append(printer)
    try:
        yield
    finally:
        _printers.pop()


def show(table: Sequence[Sequence[str]]) -> None:
    """Print lines of equally many cells, the first of which are the headings."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows, on a terminal in its width."""
    clean = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from bobrai.cli import drawing

        drawing.table(columns, clean)
        return
    show([[column.title for column in columns], *clean])


def progress(what: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """Give, in a ``with``, what is told of each step; shown by a bar where standard error is a terminal."""
    if sys.stderr.isatty():
        from bobrai.cli import drawing

        return drawing.progress(what, total)
    return quiet()


def quiet() -> AbstractContextManager[Callable[[int], None]]:
    """Give the same, and show nothing."""
    return nullcontext(lambda _steps: None)


def printable(text: str) -> str:
    """Return text on one line and without control codes, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
