"""The commands that read, wait for and change tasks over HTTP.

In: ids and filters. Out: requests, one after the other, and what has become of each; the first that went wrong decides
the exit code.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from bobrai.cli import completing, exit_codes, streams, tables, task_views
from bobrai.cli.asking import PATIENT, Api, asks, ending_with_codes, epilog, json_of, moment
from bobrai.cli.parameters import PAST, SPAN, TASK_ID
from bobrai.cli.submitting import submit
from bobrai.domain.errors import BobraiError
from bobrai.domain.task import TaskStatus
from bobrai.telemetry import masking

if TYPE_CHECKING:
    from bobrai.client import Client
    from bobrai.client.models import Explanation, Task

_PAGE: Final = 100
_BULK_PAGE: Final = 500
_CANCELLABLE: Final = (TaskStatus.PENDING, TaskStatus.PROCESSING)

commands: Final = click.Group()


@commands.group("tasks", epilog=ending_with_codes("bobrai tasks submit echo '{\"n\": 1}' --wait", "bobrai tasks list"))
def tasks_() -> None:
    """Submit tasks, wait for them, read, cancel and replay them."""


tasks_.add_command(submit)


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--before", type=PAST, help="Only tasks accepted before this moment, or so long ago."),
        click.option("--after", type=PAST, help="Only tasks accepted after this moment, or since, such as 2h."),
        click.option("--parent", type=int, help="Only tasks that this one has submitted."),
        click.option("--queue", help="Only tasks of this queue.", shell_complete=completing.queues),
        click.option("--type", "type_", help="Only tasks of this type.", shell_complete=completing.types),
        click.option("--status", type=click.Choice([str(each) for each in TaskStatus]), help="Only those."),
    ):
        function = option(function)
    return function


@tasks_.command("list", epilog=epilog("bobrai tasks list --status failed --after 2h", "bobrai tasks list -o json"))
@_filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most tasks.")
@asks
def list_(api: Api, *, limit: int, **filters: Any) -> None:
    """Show tasks, the newest first."""
    with api.client() as client:
        api.show(task_views.COLUMNS, islice(_found(client, filters, min(limit, _PAGE)), limit))


@tasks_.command("get", epilog=epilog("bobrai tasks get 17", "bobrai tasks get 17 18 -o json"))
@click.argument("ids", type=TASK_ID, nargs=-1, required=True)
@asks
def get(api: Api, *, ids: Sequence[int | str]) -> None:
    """Show all that is known of tasks; '-' reads ids from standard input."""
    with api.client() as client:
        _for_each(
            "reading",
            _ids(ids),
            lambda task_id: client.task(task_id).read(),
            lambda task: api.show_one(task, task_views.described),
        )


@tasks_.command(
    "wait", epilog=epilog("bobrai tasks wait 17 18 --timeout 5m", "bobrai tasks wait $(bobrai tasks submit echo 1)")
)
@click.argument("ids", type=TASK_ID, nargs=-1, required=True)
@click.option("--timeout", type=SPAN, help="For all of them together; then the exit code is 124.  [without end]")
@asks
def wait(api: Api, *, ids: Sequence[int | str], timeout: float | None) -> None:
    """Wait until tasks have ended, and print each one's result as JSON, in the order of the ids."""
    with api.client(deadline=PATIENT) as client:
        wait_for(api, client, _ids(ids), timeout)


def wait_for(api: Api, client: "Client", ids: Sequence[int], timeout: float | None) -> None:
    """Wait for tasks and print their results; raises SystemExit unless all are done."""
    until = None if timeout is None else time.monotonic() + timeout

    def ended(task_id: int) -> "Task":
        return client.task(task_id).wait(None if until is None else max(0.0, until - time.monotonic()))

    def shown(task: "Task") -> int:
        if api.as_json:
            api.line(task)
        elif task.status == "done":
            tables.put(json_of(task.result))
        if task.status == "done":
            return exit_codes.DONE
        how = "failed" if task.status == "failed" else "was cancelled"
        _say(f"task {task.id} ({task.type}) {how}: {task_views.outcome(task)}")
        return exit_codes.FAILED

    _for_each("waiting", ids, ended, shown)


def _change(name: str, done: str, help_: str, change: Callable[["Client", int], "Task"], example: str) -> None:
    @tasks_.command(name, help=help_, epilog=epilog(f"bobrai tasks {name} 17 18", example))
    @click.argument("ids", type=TASK_ID, nargs=-1)
    @_filters
    @click.option("--yes", is_flag=True, help="Do not ask whether all that the filters find are meant.")
    @asks
    def command(api: Api, *, ids: Sequence[int | str], yes: bool, **filters: Any) -> None:
        is_filtered = any(value is not None for value in filters.values())
        if bool(ids) == is_filtered:
            raise click.UsageError("Name ids, or filters such as --status; not both.")

        def shown(task: "Task") -> None:
            if api.as_json:
                api.line(task)
            else:
                tables.put(f"{task.id} {done if task.status in {'cancelled', 'pending'} else 'asked to stop'}")

        with api.client() as client:
            wanted = _confirmed(client, name, filters, yes=yes) if is_filtered else _ids(ids)
            _for_each(name, wanted, lambda task_id: change(client, task_id), shown, may_have_changed=is_filtered)


_change(
    "cancel",
    "cancelled",
    "Cancel tasks by ids, by those on standard input ('-'), or all that filters find; a running one is asked to stop.",
    lambda client, task_id: client.task(task_id).cancel(),
    "bobrai tasks cancel --status pending --queue mail --yes",
)
_change(
    "replay",
    "replayed",
    "Give tasks that have ended fresh attempts: by ids, by those on standard input ('-'), or all that filters find.",
    lambda client, task_id: client.task(task_id).replay(),
    "bobrai tasks replay --status failed --type charge --after 2h",
)


@tasks_.command("explain", epilog=epilog("bobrai tasks explain 17"))
@click.argument("task_id", metavar="ID", type=TASK_ID)
@asks
def explain(api: Api, *, task_id: int) -> None:
    """Say why a task is where it is, and what would help."""
    with api.client() as client:
        explanation = client.task(task_id).explain()
    api.show_one(explanation, _explained)


def _explained(explanation: "Explanation") -> list[tuple[str, str]]:
    facts = [(name.replace("_", " "), json_of(value)) for name, value in explanation.facts.items()]
    earliest = explanation.earliest_start_at
    return [
        ("status", explanation.status),
        ("why", explanation.summary),
        *([] if earliest is None else [("earliest start", moment(earliest))]),
        *facts,
    ]


def _for_each(
    what: str,
    ids: Sequence[int],
    ask: Callable[[int], "Task"],
    show: Callable[["Task"], int | None],
    *,
    may_have_changed: bool = False,
) -> None:
    """Ask for each task, and show the answer, which may return an exit code; raises SystemExit with the first one.

    What goes wrong with one keeps nobody from the others. ``may_have_changed``: since they were found; no error then.
    """
    from bobrai.client import errors

    code: int | None = None
    with tables.progress(what, len(ids)) if len(ids) > 1 else tables.quiet() as advance:
        for task_id in ids:
            try:
                shown = show(ask(task_id))
                code = code or shown
            except (errors.NotFound, errors.Conflict, errors.WaitTimeout) as error:
                if not may_have_changed:
                    code = code or exit_codes.of(error)
                    _say(_told(task_id, error))
            advance(1)
    if code:
        raise SystemExit(code)


def _told(task_id: int, error: BobraiError) -> str:
    if waiting := getattr(error, "task", None):  # of a WaitTimeout, whose seconds are those that were left for this one
        return f"task {task_id} is still {waiting.status}"
    text = str(error)
    return text if text.startswith(f"task {task_id} ") else f"task {task_id}: {text}"


def _say(text: str) -> None:
    streams.say(masking.mask(f"bobrai: {tables.printable(text)}"))


def _found(client: "Client", filters: dict[str, Any], page_size: int) -> "Iterator[Task]":
    return client.tasks(
        status=filters["status"], type=filters["type_"], queue=filters["queue"], parent_id=filters["parent"],
        created_after=filters["after"], created_before=filters["before"], page_size=page_size,
    )  # fmt: skip


def _ids(said: Sequence[int | str]) -> list[int]:
    """Return the ids, with those of standard input where it is named; raises click.BadParameter."""
    ids: list[int] = []
    for each in said:
        if isinstance(each, int):
            ids.append(each)
            continue
        for word in sys.stdin.read().split():
            found = TASK_ID.convert(word, None, None)
            if isinstance(found, str):
                raise click.BadParameter(f"{word!r} on standard input is not the id of a task")
            ids.append(found)
    return ids


def _confirmed(client: "Client", name: str, filters: dict[str, Any], *, yes: bool) -> list[int]:
    """Return the tasks that the filters find, if all are meant; raises click.Abort and click.UsageError."""
    statuses = [filters["status"]] if filters["status"] else _CANCELLABLE
    if name == "replay" and not filters["status"]:
        raise click.UsageError("Say which tasks are to be replayed: --status failed, cancelled or done.")
    # One that starts meanwhile is found twice.
    ids = list(
        dict.fromkeys(
            task.id for status in statuses for task in _found(client, {**filters, "status": status}, _BULK_PAGE)
        )
    )
    if not yes and ids:
        if not sys.stdin.isatty():
            raise click.UsageError(f"The filters find {len(ids)} tasks: say --yes to {name} them all.")
        click.confirm(f"{name.capitalize()} {len(ids)} tasks?", abort=True, err=True)
    return ids
