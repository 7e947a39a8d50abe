"""The commands for whoever looks after an installation: a test from outside, keys, the audit, the broker, a process.

In: arguments and ``BOBRAI_*`` variables. Out: what another module of this room prints. Libraries of the server are
imported when a command runs: its help can be read without them.
"""

import json
import os
from typing import Final

import click

from bobrai.cli.parameters import GRACE, LIFE, LIST
from bobrai.domain.access import Allowance, Grant, Scope
from bobrai.domain.audit import Action
from bobrai.domain.errors import ConfigurationError

commands: Final = click.Group()


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
    from bobrai.settings import load
    from bobrai.settings.values import checked_queues

    try:
        checked_queues(queues)
    except ValueError as error:
        raise ConfigurationError(f"--queue: {error}") from error
    click.echo(json.dumps(definitions(queues, vhost=vhost, prefix=load().rabbitmq.queue_prefix), indent=2))


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
        context = client_context(cacert, cert, key)
        run(url, timeout, click.echo, context, credential=os.environ.get("BOBRAI_API_KEY", ""))
    except SmokeFailed as error:
        raise click.ClickException(str(error)) from error
