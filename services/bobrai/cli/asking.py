"""What every command that asks the API has: the options that say where it is and who asks, and how answers are printed.

In: options. Out: an Api, which gives a client and prints what it has answered: tables for people, and for programs one
JSON object on each line. The client is loaded with the first request.
"""

import functools
import gc
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from bobrai import lean
from bobrai.cli import contexts, exit_codes, streams, tables
from bobrai.cli.contexts import Said
from bobrai.cli.tables import Column
from bobrai.telemetry import masking

if TYPE_CHECKING:
    from bobrai.client import Client

Answer = TypeVar("Answer")
NOTHING: Final = "-"
AT_ONCE: Final = 3.0  # seconds for which somebody who looks on is kept waiting for an API that is away
PATIENT: Final = 60.0  # for what goes on by itself, such as a batch


class Api:
    """The API, and how its answers are printed."""

    def __init__(self, said: Said, *, as_json: bool = False) -> None:
        self._said = said
        self.as_json = as_json
        self._shown = 0

    def client(self, *, deadline: float = AT_ONCE, **wishes: Any) -> "Client":
        """Return a client that asks again for so many seconds; close it. Raises ConfigurationError."""
        reach = contexts.resolve(self._said, os.environ)
        masking.hide([reach.api_key])
        with lean.without("rich", "pygments"):
            from bobrai.client import Client

        gc.freeze()  # what is imported stays; requests leave cycles, of which a batch of a million lines makes many
        gc.enable()
        return Client(reach.url, reach.api_key, ca=reach.ca or None, deadline=deadline, **wishes)

    def show(self, columns: Sequence[tuple[Column, Callable[[Answer], str]]], answers: Iterable[Answer]) -> None:
        """Print answers as they come, or in a table."""
        if self.as_json:
            for answer in answers:
                self.line(answer)
            return
        tables.fitted([column for column, _ in columns], [[cell(answer) for _, cell in columns] for answer in answers])

    def show_one(self, answer: Answer, described: Callable[[Answer], Sequence[tuple[str, str]]]) -> None:
        """Print all that is known of one answer, apart from the one before."""
        if self.as_json:
            self.line(answer)
            return
        if self._shown:
            tables.put("")
        self._shown += 1
        _describe(described(answer))

    def line(self, answer: object) -> None:
        """Print one answer as a line of JSON."""
        tables.put(json_of(answer))


def _describe(members: Sequence[tuple[str, str]]) -> None:
    widest = max(len(name) for name, _ in members)
    for name, value in members:
        first, *more = value.split("\n")
        tables.put(f"{name.ljust(widest)}  {tables.printable(first)}".rstrip())
        for line in more:
            tables.put(f"{' ' * widest}  {tables.printable(line)}".rstrip())


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the API is and who asks; the command gets an Api as its first argument."""

    @functools.wraps(function)
    def with_api(
        *, url: str | None, api_key: str | None, context: str | None, ca: str | None, output: str, **rest: Any
    ) -> None:
        try:
            function(Api(Said(url, api_key, context, ca), as_json=output == "json"), **rest)
        except BrokenPipeError:  # `| head` has seen enough
            streams.forget_output()
            raise SystemExit(exit_codes.PIPE_CLOSED) from None

    for option in reversed(_OPTIONS):
        with_api = option(with_api)
    return with_api


_OPTIONS: Final = (
    click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
        help="For people, or one JSON object on each line.",
    ),
    click.option("--context", help="A context of the configuration file.  [BOBRAI_CONTEXT, its default_context]"),
    click.option("--url", help=f"Where the API is.  [BOBRAI_URL, the context's, {contexts.DEFAULT_URL}]"),
    click.option(
        "--api-key",
        help="Better set BOBRAI_API_KEY or a context: arguments are seen by all on this machine.  "
        "[BOBRAI_API_KEY, the context's]",
    ),
    click.option("--ca", help="File of the authorities that vouch for an https URL, in PEM.  [the context's]"),
)  # fmt: skip


def epilog(*examples: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])


def ending_with_codes(*examples: str) -> str:
    """Return the end of a group's help, with the exit codes."""
    codes = "\n".join(["\b", "Exit codes:", *(f"  {code:>3}  {why}" for code, why in exit_codes.MEANINGS.items())])
    return f"{epilog(*examples)}\n\n{codes}"


def json_of(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON, on one line unless it is to be indented."""
    text = msgspec.json.encode(value)
    return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def moment(at: datetime | None) -> str:
    """Return a moment for people, in UTC."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def number(value: int | None) -> str:
    """Return a figure for people."""
    return NOTHING if value is None else str(value)
