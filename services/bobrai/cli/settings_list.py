"""``bobrai settings``: every variable for somebody at a terminal, or as the table of docs/settings.md.

In: the environment and what the settings room knows. Out: text. The table holds defaults alone, because a page is made
from it; the list holds what counts now beside them, and no secret.
"""

import textwrap
from collections.abc import Mapping

import click

from bobrai.domain.errors import ConfigurationError
from bobrai.settings import load, secret_variables, variables
from bobrai.settings.values import without_secrets

_INDENT = "    "
_NARROWEST, _WIDEST = 40, 110  # columns


def table() -> str:
    """Return names, defaults and meanings as a Markdown table."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |"
        for name, (default, meaning) in variables().items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def listed(environ: Mapping[str, str], columns: int) -> str:
    """Return each variable with its value, its default and its meaning, for a terminal that is so wide."""
    try:
        load()
        well_formed = True
    except ConfigurationError:
        well_formed = False  # so nobody knows where in a URL the password is
    width = max(_NARROWEST, min(columns, _WIDEST))
    secrets = secret_variables()
    entries = []
    for name, (default, meaning) in variables().items():
        value = environ.get(name)
        if value and name in secrets:
            value = without_secrets(value) if well_formed else "***"
        heading = f"{click.style(name, bold=True)}{_state(value, default)}"
        wrapped = textwrap.fill(meaning, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
        entries.append(f"{heading}\n{wrapped}")
    return "\n".join(entries)


def _state(value: str | None, default: str) -> str:
    if value is None:
        return f" = {default}  (default)" if default else "  (not set)"
    return f" = {click.style(value, fg='green')}  (default: {default or 'none'})"
