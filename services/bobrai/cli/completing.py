"""What a shell completes beyond names of commands and options: queues and types, asked of the API.

In: what was typed so far. Out: names; none, and without a word, where the API does not answer at once.
"""

import contextlib
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import click

from bobrai.cli.asking import Api
from bobrai.cli.contexts import Said

if TYPE_CHECKING:
    from bobrai.client import Client

_SECONDS: Final = 1.0


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Return the names of queues that begin so."""
    return _names(ctx, incomplete, lambda client: (each.name for each in client.queues()))


def types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of types that begin so."""
    return _names(ctx, incomplete, lambda client: (each.name for each in client.types()))


def _names(ctx: click.Context, incomplete: str, ask: "Callable[[Client], Iterable[str]]") -> list[str]:
    said = Said(*(ctx.params.get(name) for name in ("url", "api_key", "context", "ca")))
    # A word about what is wrong would end up in the middle of what is typed.
    try:
        with contextlib.redirect_stderr(io.StringIO()), Api(said).client(timeout=_SECONDS, deadline=_SECONDS) as client:
            return [name for name in ask(client) if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - as above
        return []
