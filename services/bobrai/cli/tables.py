"""Rows for people: columns as wide as their widest cell."""

from collections.abc import Sequence

import click


def show(table: Sequence[Sequence[str]]) -> None:
    """Print lines of equally many cells, the first of which are the headings."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
