"""Runs one coroutine as a process: settings, logs, event loop, signals.

In: which settings a command needs. Out: the coroutine's end, after which the command returns and the process exits.
"""

import asyncio
import contextlib
import gc
import resource
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from bobrai import __version__, tls
from bobrai.broker.port import Broker
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers.registry import Registry
from bobrai.handlers.registry import load as load_handlers
from bobrai.runtime import checkpoint, event_loop, forks, lag, signals, strays, verbosity
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import (
    DatabaseSettings,
    RabbitMQSettings,
    Settings,
    credentials,
    environment,
    load,
    unknown_variables,
)
from bobrai.telemetry import exposition, foreign, logs, masking, traces

log = logs.get_logger(__name__)

_OPEN_FILES = 65_536  # each connection takes one; far more than a process can serve
_TRACED = frozenset({"api", "dispatcher", "worker", "dev"})
_OBJECTS_PER_COLLECTION = 20_000  # a few MiB at most that wait to be freed; the default costs an eighth of a submit


def settings(
    process: str,
    *,
    needs: tuple[str, ...] = (),
    handlers: str | None = None,
    worker: Mapping[str, Any] | None = None,
    has_result: bool = False,
) -> Settings:
    """Load the settings for a process and set up its logs; None among the command line's wishes means unsaid.

    Of a command whose result goes to standard output only warnings are logged, on standard error.

    Raises ConfigurationError when a setting is wrong, or one that the process cannot do without is missing.
    """
    wishes = {name: value for name, value in (worker or {}).items() if value is not None}
    loaded = load(worker=wishes, top={} if handlers is None else {"handlers": handlers})
    for group in needs:
        if not getattr(loaded, group).url.get_secret_value():
            raise ConfigurationError(
                f"BOBRAI_{group.upper()}_URL is not set; set it, or run `bobrai dev` to try bobrAI without any server"
            )
    for group in needs or ("database", "rabbitmq"):
        _check_tls(group, getattr(loaded, group))
    prepare(loaded, process, has_result=has_result)
    for name, nearest in unknown_variables(environment()).items():
        log.warning("settings.unknown_variable", variable=name, did_you_mean=nearest or None)
    return loaded


def _check_tls(name: str, group: DatabaseSettings | RabbitMQSettings) -> None:
    # At the start it is said what is wrong; later, a server whose files are being replaced is only away.
    if group.tls_ca:
        tls.client_context(f"BOBRAI_{name.upper()}_TLS_", group.tls_ca, group.tls_certificate, group.tls_key)


def prepare(loaded: Settings, process: str, *, has_result: bool = False, traced: bool = True) -> None:
    """Set up logs, metrics and traces of a process; raises ConfigurationError."""
    masking.hide(*credentials.of(loaded, environment()))
    logs.configure(
        level="warning" if has_result else loaded.log.level,
        format=_log_format(loaded),
        process=process,
        version=__version__,
        stream=sys.stderr if has_result else sys.stdout,
    )
    exposition.export_as(process, __version__)
    if traced and process in _TRACED:
        trace(process)
    try:
        checkpoint.arm(loaded.crash_point)
    except ValueError as error:
        raise ConfigurationError(f"BOBRAI_CRASH_POINT: {error}") from error


def trace(process: str) -> None:
    """Make traces of a process, when the environment asks for them."""
    traces.start(process, __version__, environment())
    forks.own_from(traces.descriptors)


def _log_format(settings: Settings) -> logs.Format:
    if settings.log.format == "auto":
        return "console" if sys.stdout.isatty() else "json"
    return settings.log.format


def registry(settings: Settings) -> Registry:
    """Import the handler modules; like ``python -m``, modules in the current folder are found."""
    from bobrai.worker import starting

    here = Path.cwd()
    starting.start_in(here)  # they may leave it
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    return load_handlers(settings.handlers)


async def with_rabbitmq(settings: Settings, serve: Callable[[Broker], Coroutine[Any, Any, None]]) -> None:
    """Run a room with its own way to RabbitMQ, closed at its end; raises ConfigurationError for a wrong URL."""
    from bobrai.broker.rabbitmq import RabbitBroker

    foreign.guard_libraries()
    broker = RabbitBroker(
        settings.rabbitmq.addresses(),
        prefix=settings.rabbitmq.queue_prefix,
        connect_timeout=settings.rabbitmq.connect_timeout_seconds,
        confirm_timeout=settings.rabbitmq.confirm_timeout_seconds,
        make_context=settings.rabbitmq.make_context,
    )
    try:
        await serve(broker)
    finally:
        await broker.close()


def run(serve: Callable[[Stop], Coroutine[Any, Any, None]]) -> None:
    """Run a room until it has drained after a signal."""

    async def body() -> None:
        stop = Stop()
        stop.install()
        verbosity.install()
        strays.install()
        watching = [asyncio.create_task(lag.watch()), asyncio.create_task(stop.hold())]
        try:
            await serve(stop)
        finally:
            for task in watching:
                task.cancel()

    try:
        _run(body)
    finally:
        traces.stop()


def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run something that ends by itself; a signal ends it at once, also for a process with id 1."""

    async def body() -> None:
        stop = Stop()
        stop.install()
        if not await unless_stopped(work, stop):
            raise ConfigurationError(f"stopped by {stop.reason} before it was finished")

    _run(body)


async def unless_stopped(work: Coroutine[Any, Any, None], stop: Stop) -> bool:
    """Do the work, or cancel it when the process should end; returns whether it was finished."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    if not task.done():
        task.cancel()
        return False
    await task
    return True


def begin_forked(bind: Callable[[], None]) -> None:
    """Begin as a process of the service in a child that one of us has forked; ``bind`` is called first."""
    bind()
    forks.become_one_of_us()
    signals.install(serves=True)


def _run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    _calm_collector()
    _allow_open_files()
    event_loop.run(body())


def _calm_collector() -> None:
    """Let the cyclic garbage collector work from now on, but never walk what is imported, again and again.

    Nothing on the way of a task makes cycles; the default of 700 new objects starts a round every few requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION, 20, 20)
    gc.enable()


def _allow_open_files() -> None:
    """Raise the soft limit of open files towards the hard one: container runtimes start processes with 1,024.

    That number is for programs that use select(), and a thousand clients that wait would use it up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has a bound of its own below an endless hard limit
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
