"""The commands that show and steer queues over HTTP, and show task types and workers.

In: names and limits. Out: requests, and what is there afterwards.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from bobrai.cli import completing
from bobrai.cli.asking import NOTHING, Api, asks, ending_with_codes, epilog, json_of, moment, number
from bobrai.cli.tables import Column
from bobrai.domain import limits

if TYPE_CHECKING:
    from bobrai.client.models import Limits, Queue, TaskType, Worker

commands: Final = click.Group()


class _ListByDefault(click.Group):
    """A group whose command ``list`` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is no command for options of ``list``."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@commands.group(
    "queues", cls=_ListByDefault,
    epilog=ending_with_codes("bobrai queues", "bobrai queues pause mail", "bobrai queues limit mail --rate 10/s"),
)  # fmt: skip
def queues_() -> None:
    """Show queues, pause and resume them, and set their limits."""


def _names(function: Callable[..., None]) -> Callable[..., None]:
    return click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completing.queues)(
        function
    )


@queues_.command("list", epilog=epilog("bobrai queues list", "bobrai queues list -o json"))
@asks
def list_queues(api: Api) -> None:
    """Show every queue with its figures."""
    with api.client() as client:
        api.show(_QUEUES, client.queues())


@queues_.command("show", epilog=epilog("bobrai queues show mail"))
@_names
@asks
def show_queues(api: Api, *, names: Sequence[str]) -> None:
    """Show all that is known of queues."""
    with api.client() as client:
        for name in names:
            api.show_one(client.queue(name), _queue_described)


@queues_.command("pause", epilog=epilog("bobrai queues pause mail reports"))
@_names
@asks
def pause(api: Api, *, names: Sequence[str]) -> None:
    """Start none of these queues' tasks; they go on accepting them."""
    with api.client() as client:
        api.show(_QUEUES, [client.pause_queue(name) for name in names])


@queues_.command("resume", epilog=epilog("bobrai queues resume mail reports"))
@_names
@asks
def resume(api: Api, *, names: Sequence[str]) -> None:
    """Start these queues' tasks again."""
    with api.client() as client:
        api.show(_QUEUES, [client.resume_queue(name) for name in names])


_AT_ONCE: Final = click.IntRange(1, limits.MAX_CONCURRENCY)
_BURST: Final = click.IntRange(1, limits.MAX_RATE)


@queues_.command(
    "limit",
    epilog=epilog(
        "bobrai queues limit mail --concurrency 20 --rate 10/s",
        "bobrai queues limit charges --per-key /account --key-concurrency 3 --key-weight big=5",
        "bobrai queues limit mail --none",
    ),
)
@click.argument("name", shell_complete=completing.queues)
@click.option("--concurrency", type=_AT_ONCE, help="Tasks that run at once.")
@click.option("--rate", help="Tasks that start in a time, such as 10/s, 100/m or 1000/h.")
@click.option("--burst", type=_BURST, help="Tasks that start at once after a pause.  [as many as the rate has]")
@click.option("--per-key", help="JSON Pointer into the payload, such as /account: its values take fair turns.")
@click.option("--key-concurrency", type=_AT_ONCE, help="Tasks of each value that run at once.")
@click.option("--key-rate", help="Tasks of each value that start in a time.")
@click.option("--key-burst", type=_BURST, help="Tasks of each value that start at once after a pause.")
@click.option("--key-weight", "weights", multiple=True, metavar="VALUE=N", help="Turns of this value; may be repeated.")
@click.option("--none", "none", is_flag=True, help="No limit at all.")
@asks
def limit(api: Api, *, name: str, none: bool, weights: Sequence[str], **said: Any) -> None:
    """Set all limits of a queue at once: what is left out is not bound."""
    wished = {member: said[member] for member in ("concurrency", "rate", "burst") if said[member] is not None}
    of_key = {member: said[f"key_{member}"] for member in ("concurrency", "rate", "burst")}
    per_key: dict[str, Any] = {member: value for member, value in of_key.items() if value is not None}
    if weights:
        per_key["weights"] = dict(map(_weight, weights))
    if per_key and said["per_key"] is None:
        raise click.UsageError("Limits of each key need --per-key, such as --per-key /account.")
    if said["per_key"] is not None:
        wished["per_key"] = {"key": said["per_key"], **per_key}
    if none is bool(wished):
        raise click.UsageError("Say which limits, such as --concurrency 20 or --rate 10/s, or --none.")
    with api.client() as client:
        api.show_one(client.limit_queue(name, None if none else wished), _queue_described)


def _weight(said: str) -> tuple[str, int]:
    value, _, weight = said.rpartition("=")
    if not value or not weight.isdecimal():
        raise click.BadParameter(f"{said!r} is not VALUE=N, such as big=5", param_hint="--key-weight")
    return value, int(weight)


@commands.group("types", cls=_ListByDefault, epilog=ending_with_codes("bobrai types", "bobrai types show greet"))
def types_() -> None:
    """Show task types, as workers have announced them."""


@types_.command("list", epilog=epilog("bobrai types list", "bobrai types list -o json"))
@asks
def list_types(api: Api) -> None:
    """Show every known type, and how many living workers have it."""
    with api.client() as client:
        api.show(_TYPES, client.types())


@types_.command("show", epilog=epilog("bobrai types show greet", "bobrai types show greet --schema payload"))
@click.argument("name", shell_complete=completing.types)
@click.option("--schema", type=click.Choice(["payload", "result"]), help="Only the JSON Schema of one or the other.")
@asks
def show_type(api: Api, *, name: str, schema: str | None) -> None:
    """Show all that is known of a type."""
    with api.client() as client:
        found = client.type(name)
    if schema is None:
        api.show_one(found, _type_described)
        return
    wanted = found.payload_schema if schema == "payload" else found.result_schema
    click.echo(json_of(wanted, indent=None if api.as_json else 2))


@commands.command("workers", epilog=ending_with_codes("bobrai workers", "bobrai workers -o json"))
@asks
def workers(api: Api) -> None:
    """Show the living workers: what they consume, and how much of it they run."""
    with api.client() as client:
        api.show(_WORKERS, client.workers())


def _state(queue: "Queue") -> str:
    return "paused" if queue.paused else "active"


def _limited(wished: "Limits | None") -> str:
    if wished is None:
        return NOTHING
    said = {name: value for name, value in _members(wished).items() if name != "per_key" and value is not None}
    if wished.per_key is not None:
        per_key = {name: value for name, value in _members(wished.per_key).items() if value not in (None, {})}
        said["per_key"] = json_of(per_key)
    return " ".join(f"{name}={value}" for name, value in said.items()) or NOTHING


def _members(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


_QUEUES: Final[list[tuple[Column, "Callable[[Queue], str]"]]] = [
    (Column("NAME", is_whole=True), lambda queue: queue.name),
    (Column("STATE", is_whole=True), _state),
    (Column("DUE", is_number=True), lambda queue: _waiting(queue, "due")),
    (Column("HELD", is_number=True), lambda queue: _waiting(queue, "held")),
    (Column("DELAYED", is_number=True), lambda queue: _waiting(queue, "delayed")),
    (Column("RETRYING", is_number=True), lambda queue: _waiting(queue, "between_attempts")),
    (Column("RUNNING", is_number=True), lambda queue: number(queue.processing)),
    (Column("OLDEST", is_number=True), lambda queue: _seconds(queue.oldest_due_age_seconds)),
    (Column("WORKERS", is_number=True), lambda queue: str(queue.workers)),
    (Column("SLOTS", is_number=True), lambda queue: str(queue.slots)),
    (Column("LIMITS"), lambda queue: _limited(queue.limits)),
]
_TYPES: Final[list[tuple[Column, "Callable[[TaskType], str]"]]] = [
    (Column("NAME", is_whole=True), lambda type_: type_.name),
    (Column("QUEUE"), lambda type_: type_.queue or NOTHING),
    (Column("WORKERS", is_number=True), lambda type_: str(type_.workers)),
    (Column("TIMEOUT", is_number=True), lambda type_: _seconds(type_.timeout_seconds)),
    (Column("ATTEMPTS", is_number=True), lambda type_: str(type_.retry.max_attempts)),
    (Column("LIMITS"), lambda type_: _limited(type_.limits)),
    (Column("DESCRIPTION"), lambda type_: type_.description.partition("\n")[0] or NOTHING),
]
_WORKERS: Final[list[tuple[Column, "Callable[[Worker], str]"]]] = [
    (Column("ID", is_number=True), lambda worker: str(worker.id)),
    (Column("HOST", is_whole=True), lambda worker: worker.host or NOTHING),
    (Column("RUNNING", is_number=True), lambda worker: number(worker.running)),
    (Column("SLOTS", is_number=True), lambda worker: str(worker.concurrency)),
    (Column("STARTED", is_whole=True), lambda worker: moment(worker.started_at)),
    (Column("QUEUES"), lambda worker: ",".join(worker.queues)),
    (Column("TYPES"), lambda worker: NOTHING if worker.types is None else ",".join(worker.types)),
]


def _waiting(queue: "Queue", why: str) -> str:
    return NOTHING if queue.backlog is None else str(getattr(queue.backlog, why))


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}s" if value < 1000 else f"{value:.0f}s"


def _queue_described(queue: "Queue") -> list[tuple[str, str]]:
    return [
        ("name", queue.name),
        ("state", _state(queue)),
        ("max backlog", "the server's" if queue.max_backlog is None else str(queue.max_backlog)),
        ("limits", _limited(queue.limits)),
        ("due", _waiting(queue, "due")),
        ("held by limits", _waiting(queue, "held")),
        ("delayed", _waiting(queue, "delayed")),
        ("between attempts", _waiting(queue, "between_attempts")),
        ("running", number(queue.processing)),
        ("oldest due", _seconds(queue.oldest_due_age_seconds)),
        ("workers", str(queue.workers)),
        ("slots", str(queue.slots)),
        ("measured", moment(queue.measured_at)),
    ]


def _type_described(type_: "TaskType") -> list[tuple[str, str]]:
    retry = type_.retry
    waits = f"{retry.delay_seconds:g} s, times {retry.factor:g}, at most {retry.max_delay_seconds:g} s"
    return [
        ("name", type_.name),
        ("description", type_.description or NOTHING),
        ("queue", type_.queue or NOTHING),
        ("timeout", _seconds(type_.timeout_seconds)),
        ("deadline", _seconds(type_.deadline_seconds)),
        ("attempts", str(retry.max_attempts)),
        ("retry waits", waits),
        ("unique", NOTHING if type_.unique is None else json_of(type_.unique)),
        ("limits", _limited(type_.limits)),
        ("limits set", "by people" if type_.limits_set else "by the handler"),
        ("runs in", type_.runs_in or "the worker"),
        ("memory", NOTHING if type_.memory_mb is None else f"{type_.memory_mb} MiB"),
        ("workers", str(type_.workers)),
        ("announced", moment(type_.announced_at)),
    ]
