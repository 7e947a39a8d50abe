"""``bobrai dev``: API, dispatcher and worker in one process, with nothing to install.

In: settings. Out: the whole service on an embedded PostgreSQL, whose data stays in a folder, and an in-process broker.
``BOBRAI_DATABASE_URL`` and ``BOBRAI_RABBITMQ_URL``, when set, are used instead.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bobrai.api.main import serve as serve_api
from bobrai.broker.memory import MemoryBroker
from bobrai.broker.port import Broker
from bobrai.cli import process, streams
from bobrai.cli.schema import bring_to_head
from bobrai.dispatcher.main import serve as serve_dispatcher
from bobrai.domain.errors import BobraiError, ConfigurationError, DatabaseUnavailable
from bobrai.handlers.registry import Registry
from bobrai.runtime import forks, signals
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.server import listen
from bobrai.settings import Settings
from bobrai.store.embedded import EmbeddedPostgres
from bobrai.worker.main import serve as serve_worker

# A developer's database is up or its URL is wrong; a server's process would wait.
_PATIENCE_SECONDS = 5.0
_DATABASE_STOP_SECONDS = 30.0  # its stop is the last part of the drain
# What the in-process broker held is gone with every restart, so what it lost is looked for soon.
_SWEEP_SECONDS = 1.0
_SWEEP_GRACE_SECONDS = 2.0


def run(settings: Settings) -> None:
    """Run until a signal, then drain and stop the embedded database; the worker consumes its types' queues as well.

    Raises ConfigurationError for a taken port, a full disk or a wrong URL, before anything is started.
    """
    registry = process.registry(settings)
    listen(settings.api.bind, "BOBRAI_API_BIND").close()  # a taken port is said before a database is started
    embedded = None if settings.database.url.get_secret_value() else EmbeddedPostgres(Path(settings.data_dir).resolve())
    try:
        if embedded:
            signals.before_kill(embedded.stop_at_once)
            forks.own_from(lambda: embedded.descriptors)
        settings = in_one_process(settings, registry, embedded.start() if embedded else "")
        process.run(
            lambda stop: serve(settings, registry, stop, lambda _port, waits_for: _welcome(settings, waits_for))
        )
    finally:
        if embedded:
            signals.end_within(_DATABASE_STOP_SECONDS)
            embedded.stop()


def in_one_process(settings: Settings, registry: Registry, embedded_url: str = "") -> Settings:
    """Return settings with which the rooms get on in one process; with the URL of an embedded database, on that."""
    # There is no other worker that could have the queues of this one's types.
    queues = tuple(dict.fromkeys([*settings.worker.queues, *(each.queue for each in registry)]))
    # The API's own port serves the metrics of the whole process, so the small ports take any free number.
    dispatcher: dict[str, object] = {"health_bind": "127.0.0.1:0"}
    if not settings.rabbitmq.url.get_secret_value():
        dispatcher["sweep_seconds"] = min(_SWEEP_SECONDS, settings.dispatcher.sweep_seconds)
        dispatcher["sweep_grace_seconds"] = min(_SWEEP_GRACE_SECONDS, settings.dispatcher.sweep_grace_seconds)
    updates: dict[str, object] = {
        "worker": settings.worker.model_copy(update={"health_bind": "127.0.0.1:0", "queues": queues}),
        "dispatcher": settings.dispatcher.model_copy(update=dispatcher),
    }
    if embedded_url:
        own = {"url": SecretStr(embedded_url), "direct_url": SecretStr(""), "user": "", "password": SecretStr("")}
        updates["database"] = settings.database.model_copy(update=own)
    return settings.model_copy(update=updates)


async def serve(settings: Settings, registry: Registry, stop: Stop, on_listening: Callable[[int, str], None]) -> None:
    """Bring the schema to head, and run all rooms until ``stop``.

    ``on_listening`` gets the API's port, and the address of a RabbitMQ that is not there yet, if that is so. Raises
    ConfigurationError.
    """
    waits_for = ""

    async def prepare() -> None:
        nonlocal waits_for
        waits_for = await _look_at_rabbitmq(settings)
        # All types at once, so that the API knows the user's own before the worker has said so.
        await bring_to_head(settings, registry.types(), patience_seconds=_PATIENCE_SECONDS)

    try:
        finished = await process.unless_stopped(prepare(), stop)
    except DatabaseUnavailable as error:
        raise ConfigurationError(f"the database of BOBRAI_DATABASE_URL cannot be reached: {error}") from error
    if not finished:
        return
    within = MemoryBroker()

    def with_broker(serve: Callable[[Broker], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
        return process.with_rabbitmq(settings, serve) if settings.rabbitmq.url.get_secret_value() else serve(within)

    try:
        async with asyncio.TaskGroup() as rooms:
            rooms.create_task(serve_api(settings, stop, on_listening=lambda port: on_listening(port, waits_for)))
            rooms.create_task(with_broker(lambda broker: serve_dispatcher(settings, broker, stop)))
            worker = with_broker(lambda broker: serve_worker(settings, broker, registry, stop))
            rooms.create_task(_then_stop(worker, stop))
    except* BobraiError as group:
        failures = group.exceptions
    else:
        failures = ()
    await within.close()
    if failures:
        raise failures[0]


async def _look_at_rabbitmq(settings: Settings) -> str:
    from bobrai.broker.first_look import first_look

    urls = settings.rabbitmq.addresses()
    own = settings.rabbitmq
    return await first_look(urls, own.connect_timeout_seconds, own.make_context) if urls else ""


async def _then_stop(worker: Coroutine[Any, Any, None], stop: Stop) -> None:
    # A worker that recycles itself ends alone in a cluster, where it is started again; here the rest ends with it.
    await worker
    stop.request("the worker ended")


def _welcome(settings: Settings, waits_for: str) -> None:
    url = f"{'https' if settings.api.tls_certificate else 'http'}://{settings.api.bind}"
    nobody = settings.auth.anonymous(settings.api.bind)
    is_open = "It is open: whoever reaches it needs no key (docs/access.md).\n" if nobody else ""
    waits = f"It waits for RabbitMQ at {waits_for}: tasks are accepted, and run once it is there.\n"
    streams.say(
        f"\nbobrAI listens on {url}  (docs: {url}/docs, Ctrl-C stops it)\n"
        f"{waits if waits_for else ''}{is_open}"
        f"Try:  curl -X POST {url}/tasks -H 'Content-Type: application/json' -d '{{\"payload\": \"test task\"}}'\n"
        f"then: curl '{url}/tasks/1?wait=5'\n",
        error=False,
    )
