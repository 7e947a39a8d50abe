"""The commands: each loads the settings, builds what one room needs, and calls that room.

In: arguments and ``BOBRAI_*`` variables. Out: an exit code. ``process`` runs one room, ``dev`` all of them.
"""

import io
import json
import os
import shutil
import sys

import click

from bobrai import __version__
from bobrai.cli import process, streams
from bobrai.cli.parameters import GRACE, LIFE, LIST
from bobrai.domain.access import Allowance, Grant, Scope
from bobrai.domain.audit import Action
from bobrai.domain.errors import BobraiError, ConfigurationError
from bobrai.runtime import signals
from bobrai.settings import environment, load
from bobrai.settings.values import checked_queues
from bobrai.telemetry import events, exposition, masking, rendering


def run() -> int:
    """Run the command line and return the exit code.

    An error that was foreseen becomes one line and code 2, a defect its traceback and code 1.
    """
    try:
        commands.main(standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 - told as Python would, but for the credentials
        code = signals.code_of_early_end()
        return _told(error) if code is None else code
    return 0


def _told(error: BaseException) -> int:
    """Say why the command ends, and return its exit code."""
    if isinstance(error, click.ClickException):
        streams.say(masking.mask(_shown(error)))
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return 130
    if isinstance(error, BobraiError):
        streams.say(masking.mask(f"bobrai: {error}"))
        return 2
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        streams.say(masking.mask(rendering.text(error.code)))
    elif isinstance(error, OSError) and _is_of_echo(error):
        streams.say(f"bobrai: cannot write to standard output: {error.strerror}")
    else:
        streams.say(masking.mask(rendering.traceback_of(error)))
    return 1


def _is_of_echo(error: OSError) -> bool:
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return frames is not None and frames.tb_frame.f_globals.get("__name__") == click.echo.__module__


def _shown(error: click.ClickException) -> str:
    shown = io.StringIO()
    error.show(shown)
    return shown.getvalue().rstrip("\n")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bobrai")
def commands() -> None:
    """A task-processing service: no accepted task is ever lost."""


_handlers_option = click.option("--handlers", help="Modules that declare handlers, by commas.  [BOBRAI_HANDLERS]")


@commands.command()
def api() -> None:
    """Serve HTTP: accept tasks and show them."""
    from bobrai.api.main import serve

    settings = process.settings("api", needs=("database",))
    process.run(lambda stop: serve(settings, stop))


@commands.command()
def dispatcher() -> None:
    """Publish what is due, and repair what is stuck."""
    from bobrai.dispatcher.main import serve

    settings = process.settings("dispatcher", needs=("database", "rabbitmq"))
    process.run(lambda stop: process.with_rabbitmq(settings, lambda broker: serve(settings, broker, stop)))


@commands.command()
@_handlers_option
@click.option("--queues", help="Queues to consume, by commas.  [BOBRAI_WORKER_QUEUES]")
@click.option("--concurrency", type=int, help="Tasks that run at once.  [BOBRAI_WORKER_CONCURRENCY]")
def worker(handlers: str | None, queues: str | None, concurrency: int | None) -> None:
    """Run handlers."""
    from bobrai.worker.main import serve

    wishes = {"queues": queues, "concurrency": concurrency}
    settings = process.settings("worker", needs=("database", "rabbitmq"), handlers=handlers, worker=wishes)
    registry = process.registry(settings)
    process.run(lambda stop: process.with_rabbitmq(settings, lambda broker: serve(settings, broker, registry, stop)))


@commands.command(hidden=True)
@click.argument("descriptor", type=int)
@click.argument("output", type=int)
def isolated(descriptor: int, output: int) -> None:
    """Run attempts for the worker that has started this process, with an open socket and a pipe to print to."""
    from bobrai.worker.isolated import attach, serve
    from bobrai.worker.output import print_to

    connection, settings = attach(descriptor)
    process.prepare(settings, "worker")
    print_to(output)
    registry = process.registry(settings)
    process.run(lambda _stop: serve(connection, settings, registry))


@commands.command("fork-server", hidden=True)
@click.argument("descriptor", type=int)
def fork_server(descriptor: int) -> None:
    """Fork processes that run attempts, for the worker that has started this one with an open socket."""
    from bobrai.worker import fork_server
    from bobrai.worker.isolated import attach, end_with_parent, serve
    from bobrai.worker.output import print_to

    connection, settings = attach(descriptor)
    process.prepare(settings, "worker", traced=False)
    registry = process.registry(settings)
    connection, output = fork_server.serve(connection, begin=lambda: process.begin_forked(end_with_parent))
    # In a child from here on.
    print_to(output)
    process.trace("worker")
    process.run(lambda _stop: serve(connection, settings, registry))


@commands.command("external-metrics")
def external_metrics() -> None:
    """Show Kubernetes' autoscaler how much waits in each queue."""
    from bobrai.external_metrics.main import serve

    settings = process.settings("external-metrics", needs=("database",))
    process.run(lambda stop: serve(settings, stop))


@commands.command()
@click.option("--wait", "only_wait", is_flag=True, help="Change nothing; wait until somebody else has migrated.")
def migrate(*, only_wait: bool) -> None:
    """Bring the database schema to this release's version; any number of processes may do so at once."""
    from bobrai.cli.schema import bring_to_head, wait_for_head

    settings = process.settings("migrate", needs=("database",))
    process.run_until_stopped(wait_for_head(settings) if only_wait else bring_to_head(settings))


@commands.command()
@_handlers_option
def dev(handlers: str | None) -> None:
    """Run everything in one process, on an embedded PostgreSQL and an in-process broker."""
    from bobrai.cli.dev import run

    run(process.settings("dev", handlers=handlers))


@commands.command()
@click.argument("url", default="http://127.0.0.1:8001")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Seconds."
)
@click.option("--cacert", default="", help="File of the authorities that vouch for an https URL, in PEM.")
@click.option("--cert", default="", help="File of a client certificate to show, in PEM.")
@click.option("--key", default="", help="File of the client certificate's private key, in PEM.")
def smoke(url: str, timeout: float, cacert: str, cert: str, key: str) -> None:
    """Submit a task of each built-in type to the API at URL and see both done; exit code 1 with the reason if not.

    Where the API wants a credential, BOBRAI_API_KEY holds a key with the scopes tasks:submit, tasks:read and
    tasks:payload.
    """
    from bobrai.cli.smoke import SmokeFailed, client_context, run

    try:
        run(url, timeout, click.echo, client_context(cacert, cert, key), credential=load().api_key.get_secret_value())
    except SmokeFailed as error:
        raise click.ClickException(str(error)) from error


@commands.group("keys")
def keys_() -> None:
    """Make, list, rotate and revoke API keys, in the database of BOBRAI_DATABASE_URL or of a `bobrai dev` here."""


@keys_.command("create")
@click.option("--name", required=True, help="For people; no two keys in use have the same.")
@click.option("--scopes", required=True, type=LIST, help=f"By commas, of {', '.join(Scope)}.")
@click.option("--queues", type=LIST, help="Patterns such as 'mail*', by commas.  [every queue]")
@click.option("--types", type=LIST, help="Patterns of task types, by commas.  [every type]")
@click.option("--own-tasks", is_flag=True, help="Of tasks it reaches only those that it has submitted itself.")
@click.option("--rate", help="Requests over all processes, such as 100/s or 30/m.  [BOBRAI_AUTH_RATE]")
@click.option("--burst", type=int, help="Requests at once after a pause.  [as many as the rate has]")
@click.option("--max-waiting", type=int, help="Tasks of it that may wait.  [without bound]")
@click.option("--expires", type=LIFE, help="After so long, such as 90d or 12h.  [never]")
def keys_create(
    *,
    name: str,
    scopes: list[str],
    queues: list[str] | None,
    types: list[str] | None,
    own_tasks: bool,
    rate: str | None,
    burst: int | None,
    max_waiting: int | None,
    expires: float | None,
) -> None:
    """Make a key. Its secret is shown once, alone on standard output."""
    from bobrai.cli import keys

    try:
        grant = Grant.of(scopes, queues=queues or (), types=types or (), own_tasks=own_tasks)
        allowance = Allowance.of(rate=rate, burst=burst, max_waiting=max_waiting)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    keys.create(name, grant, allowance, expires)


@keys_.command("list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def keys_list(*, as_json: bool) -> None:
    """Show every key, without secrets."""
    from bobrai.cli import keys

    keys.list_all(as_json=as_json)


@keys_.command("rotate")
@click.argument("key")
@click.option("--grace", type=GRACE, default="1d", show_default=True, help="How long the secret so far works as well.")
def keys_rotate(key: str, grace: float) -> None:
    """Give the key of this id or name another secret, shown once."""
    from bobrai.cli import keys

    keys.rotate(key, grace)


@keys_.command("revoke")
@click.argument("key")
def keys_revoke(key: str) -> None:
    """End the key of this id or name for good."""
    from bobrai.cli import keys

    keys.revoke(key)


@commands.command("audit")
@click.option("--actor", help="Only changes of this principal, such as key:k7x2m9q4w1ab or cli:alice.")
@click.option("--action", type=click.Choice([str(each) for each in Action]), help="Only changes of this kind.")
@click.option("--target", help="Only changes to this, such as task:17, queue:mail or key:k7x2m9q4w1ab.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Most changes.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def audit_(*, actor: str | None, action: str | None, target: str | None, limit: int, as_json: bool) -> None:
    """Show who changed what, the newest first, from the database of BOBRAI_DATABASE_URL or of a `bobrai dev` here."""
    from bobrai.cli import audit
    from bobrai.store.audit import AuditFilter

    wanted = AuditFilter(actor=actor, action=None if action is None else Action(action), target=target)
    audit.show(wanted, limit=limit, as_json=as_json)


@commands.command("rabbitmq-definitions")
@click.option("--queue", "queues", multiple=True, default=["default"], help="A queue to declare; may be repeated.")
@click.option("--vhost", default="/", show_default=True, help="The vhost that queues and policies belong to.")
def rabbitmq_definitions(queues: tuple[str, ...], vhost: str) -> None:
    """Print queues and policies as a definitions file that any RabbitMQ imports."""
    from bobrai.broker.definitions import definitions

    try:
        checked_queues(queues)
    except ValueError as error:
        raise ConfigurationError(f"--queue: {error}") from error
    click.echo(json.dumps(definitions(queues, vhost=vhost, prefix=load().rabbitmq.queue_prefix), indent=2))


@commands.command("metrics")
def metrics_() -> None:
    """Print every metric with its labels and who exports it, as a Markdown table."""
    click.echo(exposition.table())


@commands.command("logs")
def logs_() -> None:
    """Print every event that is logged, as a Markdown table."""
    click.echo(events.table())


@commands.command("log-level")
@click.argument("level", type=click.Choice(["debug", "configured"]))
@click.option("--pid", type=int, default=1, show_default=True, help="The process; in a container it is 1.")
def log_level(level: str, pid: int) -> None:
    """Let a running process log everything, or what its setting says again."""
    from bobrai.runtime.verbosity import SIGNALS

    try:
        os.kill(pid, SIGNALS[level])
    except OSError as error:
        raise ConfigurationError(f"process {pid} cannot be told: {error.strerror}") from error


@commands.command("settings")
@click.option(
    "--markdown/--list",
    default=None,
    help="A table with defaults alone, or a list with what counts now.  [the list on a terminal, the table elsewhere]",
)
def settings_(*, markdown: bool | None) -> None:
    """Print every environment variable with its value, its default and its meaning; secrets are masked."""
    from bobrai.cli.settings_list import listed, table

    if markdown is None:
        markdown = not sys.stdout.isatty()
    if markdown:
        click.echo(table())
        return
    click.echo(listed(environment(), shutil.get_terminal_size().columns))
    load()  # below the list it is said what of it is wrong
