"""The commands that run a process of the service, and the one that prepares its database.

In: arguments and ``BOBRAI_*`` variables. Out: one room that runs until a signal; ``dev`` runs all of them. Libraries
are imported when a command runs: its help can be read without them.
"""

from typing import Final

import click

commands: Final = click.Group()

_handlers_option = click.option("--handlers", help="Modules that declare handlers, by commas.  [BOBRAI_HANDLERS]")


@commands.command()
def api() -> None:
    """Serve HTTP: accept tasks and show them."""
    from bobrai.api.main import serve
    from bobrai.cli import process

    settings = process.settings("api", needs=("database",))
    process.run(lambda stop: serve(settings, stop))


@commands.command()
def dispatcher() -> None:
    """Publish what is due, and repair what is stuck."""
    from bobrai.cli import process
    from bobrai.dispatcher.main import serve

    settings = process.settings("dispatcher", needs=("database", "rabbitmq"))
    process.run(lambda stop: process.with_rabbitmq(settings, lambda broker: serve(settings, broker, stop)))


@commands.command()
@_handlers_option
@click.option("--queues", help="Queues to consume, by commas.  [BOBRAI_WORKER_QUEUES]")
@click.option("--concurrency", type=int, help="Tasks that run at once.  [BOBRAI_WORKER_CONCURRENCY]")
def worker(handlers: str | None, queues: str | None, concurrency: int | None) -> None:
    """Run handlers."""
    from bobrai.cli import process
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
    from bobrai.cli import process
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
    from bobrai.cli import process
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
    from bobrai.cli import process
    from bobrai.external_metrics.main import serve

    settings = process.settings("external-metrics", needs=("database",))
    process.run(lambda stop: serve(settings, stop))


@commands.command()
@click.option("--wait", "only_wait", is_flag=True, help="Change nothing; wait until somebody else has migrated.")
def migrate(*, only_wait: bool) -> None:
    """Bring the database schema to this release's version; any number of processes may do so at once."""
    from bobrai.cli import process
    from bobrai.cli.schema import bring_to_head, wait_for_head

    settings = process.settings("migrate", needs=("database",))
    process.run_until_stopped(wait_for_head(settings) if only_wait else bring_to_head(settings))


@commands.command()
@_handlers_option
def dev(handlers: str | None) -> None:
    """Run everything in one process, on an embedded PostgreSQL and an in-process broker."""
    from bobrai.cli import process
    from bobrai.cli.dev import run

    run(process.settings("dev", handlers=handlers))
