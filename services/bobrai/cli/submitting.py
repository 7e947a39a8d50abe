"""``bobrai tasks submit``: one task, or one for each line of a file.

In: a type, payloads, and everything else that a submission can say. Out: ids on standard output, and nothing else, so
that another command can take them; why tasks may have to wait is said on standard error.
"""

from collections.abc import Callable
from typing import Any, Final

import click

from bobrai.cli import completing, payloads, streams
from bobrai.cli.asking import AT_ONCE, PATIENT, Api, asks, epilog
from bobrai.cli.parameters import MOMENT, PERIOD_OR_MOMENT, SPAN, STANDARD_INPUT
from bobrai.domain import limits
from bobrai.domain.unique import ON_CONFLICTS, WHILES

_RETRY: Final = {
    "retry_delay": "delay_seconds",
    "retry_factor": "factor",
    "retry_max_delay": "max_delay_seconds",
    "retry_jitter": "jitter",
    "retry_for": "retry_for_seconds",
}
_UNIQUE: Final = {
    "unique": "key",
    "unique_for": "for_seconds",
    "unique_while": "while",
    "on_conflict": "on_conflict",
}
_OPTIONS: Final = (
    click.option("--queue", help="Where it waits.  [the type's]", shell_complete=completing.queues),
    click.option("--priority", type=click.IntRange(0, limits.MAX_PRIORITY), help="Higher starts first.  [0]"),
    click.option("--delay", type=SPAN, help="Due so much later, such as 90s, 5m, 2h or 1d."),
    click.option("--run-at", type=MOMENT, help="Due at this moment, such as 2030-01-31T12:00:00Z."),
    click.option("--timeout", type=SPAN, help="Longest run of one attempt.  [the type's]"),
    click.option("--deadline", type=PERIOD_OR_MOMENT, help="It fails unless it has ended by then."),
    click.option("--expires", type=PERIOD_OR_MOMENT, help="It is cancelled unless it has started by then."),
    click.option("--max-attempts", type=click.IntRange(1, limits.MAX_ATTEMPTS), help="[the type's]"),
    click.option("--retry-delay", type=SPAN, help="Wait after the first failed attempt."),
    click.option("--retry-factor", type=float, help="The wait is multiplied by this after each further one."),
    click.option("--retry-max-delay", type=SPAN, help="No wait is longer."),
    click.option("--retry-jitter", type=float, help="Largest share by which a wait is shortened at random."),
    click.option("--retry-for", type=SPAN, help="No attempt starts later than this after the first one."),
    click.option(
        "--unique", help="One at a time with the same value at this JSON Pointer, such as /order; '': in all."
    ),
    click.option("--unique-for", type=SPAN, help="For no longer than this after the first one's acceptance."),
    click.option("--unique-while", type=click.Choice(WHILES), help="For how long the first is the only one."),
    click.option("--on-conflict", type=click.Choice(ON_CONFLICTS), help="What becomes of the first one's contents."),
    click.option("--no-unique", is_flag=True, help="There may be many, whatever the type says."),
)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(
    "submit",
    epilog=epilog(
        "bobrai tasks submit echo '{\"n\": 1}'",
        "bobrai tasks submit greet --text world --delay 5m --queue mail",
        "bobrai tasks submit echo --file payload.json --wait",
        "bobrai tasks submit letter --lines --file letters.jsonl --idempotency-key letters-may",
    ),
)
@click.argument("type_", metavar="TYPE", shell_complete=completing.types)
@click.argument("payload", required=False)
@click.option("--text", is_flag=True, help="The payload is a string, as it stands there.")
@click.option("--file", type=click.Path(allow_dash=True), help="File of the payload; '-': standard input.")
@click.option("--lines", is_flag=True, help="A task for each line of the file or of standard input.")
@click.option("--skip-bad", is_flag=True, help="Leave out lines that are no payload, instead of submitting nothing.")
@_options
@click.option(
    "--idempotency-key",
    help="Stored once under this key: the same command again returns the same ids, and stores what was left.",
)
@click.option("--wait", is_flag=True, help="Wait until it has ended, and print its result instead of its id.")
@click.option("--wait-timeout", type=SPAN, help="Wait no longer; then the exit code is 124.")
@asks
def submit(
    api: Api, *, type_: str, payload: str | None, text: bool, file: str | None, lines: bool, skip_bad: bool,
    idempotency_key: str | None, wait: bool, wait_timeout: float | None, **said: Any,
) -> None:  # fmt: skip
    """Submit a task, and print its id. PAYLOAD is JSON, and null when left out; '-' reads it from standard input."""
    if payload == STANDARD_INPUT:
        payload, file = None, file or STANDARD_INPUT
    if payload is not None and (file or lines):
        raise click.UsageError("The payload is either an argument or in a file: leave one out.")
    options = _submission(said)
    waits = wait or wait_timeout is not None
    if lines:
        from bobrai.cli.batches import Batch

        if waits:
            raise click.UsageError("--wait is for one task: give the printed ids to `bobrai tasks wait`.")
        batch = Batch(api, type_, options, key=idempotency_key, skips_bad=skip_bad)
        batch.submit(file or STANDARD_INPUT, as_text=text)
        return
    value = None
    if file:
        value = payloads.whole(file, as_text=text)
    elif payload is not None:
        value = payloads.argument(payload, as_text=text)
    with api.client(deadline=PATIENT if waits else AT_ONCE) as client:
        handle = client.submit(type_, value, **options, idempotency_key=idempotency_key)
        for warning in handle.warnings:
            streams.say(f"bobrai: task {handle.id}: {warning}")
        if waits:
            from bobrai.cli.tasks import wait_for

            wait_for(api, client, [handle.id], wait_timeout)
            return
    if api.as_json:
        api.line({"task_id": handle.id, "duplicate": handle.duplicate, "warnings": handle.warnings})
    else:
        click.echo(handle.id)


def _submission(said: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a submission, those alone that were said; raises click.UsageError."""
    rest = {name: value for name, value in said.items() if value is not None and name != "no_unique"}
    retry = {member: rest.pop(name) for name, member in _RETRY.items() if name in rest}
    unique = {member: rest.pop(name) for name, member in _UNIQUE.items() if name in rest}
    if said["no_unique"] and unique:
        raise click.UsageError("--no-unique goes with no other option about uniqueness.")
    if "delay" in rest and "run_at" in rest:
        raise click.UsageError("--delay and --run-at both say when it is due: leave one out.")
    if retry:
        rest["retry"] = retry
    if unique or said["no_unique"]:
        rest["unique"] = unique or None
    return rest
