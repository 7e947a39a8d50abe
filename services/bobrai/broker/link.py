"""One AMQP connection that is kept up: connects in the background, notices the loss, connects again, for ever.

In: one or more URLs. Out: channels of whatever connection is up now (next: `channels.py`). The library's own
self-healing connection is not used: after an outage it can leave consumers that get nothing, and it restores channels
whose deliveries can no longer be acked. Here a lost connection ends everything on it, and each user starts afresh.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from bobrai import tls
from bobrai.domain.errors import BrokerUnavailable, ConfigurationError
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

HEARTBEAT_SECONDS = 15  # a dead peer is noticed after 30 to 50 s, by the watchdog of a subscription sooner
CONNECT_TIMEOUT = 5.0
RPC_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 2.0  # every task waits for the return of a broker that was away

# The library logs every failed attempt and every lost connection, with tracebacks; the supervisor below says it once.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Backoff:
    """Pauses that double from 0.2 s to 2 s, each shortened by up to half, so that clients do not return all at once."""

    def __init__(self) -> None:
        self._ceiling = SHORTEST_PAUSE

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._ceiling = SHORTEST_PAUSE

    async def pause(self) -> None:
        """Sleep, and let the next pause be longer."""
        ceiling, self._ceiling = self._ceiling, min(self._ceiling * 2, LONGEST_PAUSE)
        await asyncio.sleep(random.uniform(ceiling / 2, ceiling))


@contextlib.contextmanager
def broker_errors(what: str) -> Iterator[None]:
    """Turn whatever the library raises into BrokerUnavailable, and keep cancellation what it is.

    The library cancels the futures of its callers when a connection ends. Such a CancelledError is an outage and not a
    wish to stop; it is told apart by nobody having cancelled the current task. The other way round, the library and
    `wait_for` up to Python 3.11, on which it rests, may swallow a cancellation that meets an answer or an error; it is
    raised again here, whatever else was raised.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        with _as_unavailable(what):
            yield
    finally:
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError


@contextlib.contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except BrokerUnavailable:
        raise
    except TimeoutError as error:
        raise BrokerUnavailable(f"{what}: no answer in time") from error
    except (aiormq.AMQPError, OSError, RuntimeError, ValueError) as error:
        raise BrokerUnavailable(f"{what}: {error or type(error).__name__}") from error
    except asyncio.CancelledError as error:
        raise BrokerUnavailable(f"{what}: the connection ended") from error


def parse_urls(text: str) -> list[URL]:
    """Return the nodes of a comma-separated list of amqp:// or amqps:// URLs. Raises ConfigurationError."""
    urls = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            url = URL(part)
            valid = url.scheme in {"amqp", "amqps"} and bool(url.host)
        except ValueError:
            valid = False
        if not valid:
            raise ConfigurationError("a RabbitMQ URL must look like amqp://user:password@host:5672/vhost")
        urls.append(url if "heartbeat" in url.query else url.update_query(heartbeat=str(HEARTBEAT_SECONDS)))
    if not urls:
        raise ConfigurationError("no RabbitMQ URL is given")
    return urls


def node(url: URL) -> str:
    """Return the node's address without credentials."""
    return f"{url.host}:{url.port or (5671 if url.scheme == 'amqps' else 5672)}"


def reason_of(error: BaseException, url: URL) -> str:
    """Return what went wrong, in words that tell an operator where to look, and never the password."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    elif _is_of_user(error):
        text = f"user {url.user!r} or its password is wrong: {error}"
    elif _is_of_virtual_host(error):
        text = f"virtual host {url.path.removeprefix('/') or '/'!r} does not exist or user {url.user!r} may not use it"
    elif isinstance(cause, socket.gaierror):
        text = f"host name {url.host!r} is unknown: {cause}"
    elif isinstance(cause, ssl.SSLError):
        text = tls.reason(cause)
    else:
        text = str(error) or type(error).__name__
    return text.replace(f":{url.raw_password}@", ":***@")


def is_refusal(error: BaseException) -> bool:
    """Return whether the broker answers and does not take what the URL says: its user or its virtual host."""
    return _is_of_user(error) or _is_of_virtual_host(error)


def _is_of_user(error: BaseException) -> bool:
    return isinstance(error, aiormq.exceptions.ProbableAuthenticationError | aiormq.exceptions.AuthenticationError)


def _is_of_virtual_host(error: BaseException) -> bool:
    # The library drops the broker's words when it is closed out at the last step of the handshake.
    return isinstance(error, aiormq.exceptions.InvalidFrameError) and "Connection.OpenOk" in str(error)


MakeContext = Callable[[], ssl.SSLContext | None]


async def connect(url: URL, timeout: float, make_context: MakeContext | None) -> AbstractConnection:
    """Return an open connection to one node; the files of TLS are read anew each time.

    Raises what the library raises, and ConfigurationError for files that cannot be used.
    """
    context = make_context() if make_context is not None else None
    return await aio_pika.connect(url, timeout=timeout, ssl_context=context)


class Link:
    """The supervised connection: `start` once, `close` once; what lies between survives any number of outages."""

    def __init__(
        self,
        urls: Sequence[URL],
        name: str,
        connect_timeout: float = CONNECT_TIMEOUT,
        make_context: MakeContext | None = None,
    ) -> None:
        self._urls = list(urls)
        self._name = name
        self._connect_timeout = connect_timeout
        self._make_context = make_context
        self._connection: AbstractConnection | None = None
        self._lost: asyncio.Future[str] | None = None
        self._up = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether a connection is up and has not been found dead."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Return once connected, which may be at once."""
        await self._up.wait()

    @property
    def lost(self) -> "asyncio.Future[str]":
        """Done, with the reason, as soon as the present connection is lost; never cancel it.

        Raises BrokerUnavailable when there is none.
        """
        if self._lost is None or self._lost.done():
            raise BrokerUnavailable("not connected to RabbitMQ")
        return self._lost

    @property
    def connection(self) -> AbstractConnection:
        """The connection that is up now. Raises BrokerUnavailable."""
        if self._connection is None:
            raise BrokerUnavailable("not connected to RabbitMQ")
        return self._connection

    @property
    def server_version(self) -> tuple[int, ...]:
        """What the broker says that it is. Raises BrokerUnavailable."""
        transport = self.connection.transport
        version = transport.connection.server_properties.get("version", "") if transport is not None else ""
        text = version.decode() if isinstance(version, bytes) else str(version)
        return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdigit())

    async def unblocked(self) -> None:
        """Return when the broker takes publishes: at once, or when its memory or disk alarm is over."""
        transport = self.connection.transport
        if transport is not None:
            await transport.ready()

    def start(self) -> None:
        """Begin to connect, in the background."""
        if self._supervisor is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise(), name="broker-link")

    async def close(self) -> None:
        """Stop connecting and close what is open, politely for at most two seconds."""
        supervisor, self._supervisor = self._supervisor, None
        chores = [*self._chores, *([supervisor] if supervisor else [])]
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)

    def drop(self, reason: str) -> None:
        """Give the present connection up, because it does not answer; a new one is made."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    async def open_channel(self, *, publisher_confirms: bool) -> AbstractChannel:
        """Return a fresh channel of the present connection. Raises BrokerUnavailable, also when it takes over 5 s."""
        connection = self.connection
        try:
            with broker_errors("opening a channel"):
                async with asyncio.timeout(RPC_TIMEOUT):
                    channel = connection.channel(publisher_confirms=publisher_confirms)
                    await channel.initialize()
                    return channel
        except BrokerUnavailable as error:
            if connection is self._connection:
                self.drop(str(error))
            raise

    def retire(self, channel: AbstractChannel) -> None:
        """Close a channel in the background; a connection on which that fails is dropped."""
        chore = asyncio.get_running_loop().create_task(self.close_channel(channel))
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel and wait until the broker has agreed, or the connection is given up. Raises nothing."""
        connection = self._connection
        if channel.is_closed:
            return
        try:
            with broker_errors("closing a channel"):
                async with asyncio.timeout(RPC_TIMEOUT):
                    await channel.close()
        except BrokerUnavailable as error:
            if connection is self._connection:
                self.drop(str(error))

    async def _supervise(self) -> None:
        backoff = Backoff()
        while True:
            try:
                connected = await self._connect_any()
                if connected is not None:
                    since = time.monotonic()
                    await self._use(*connected)
                    if time.monotonic() - since > LONGEST_PAUSE:
                        backoff.reset()
            except Exception:
                log.exception("broker.link.failed")
            await backoff.pause()

    async def _use(self, connection: AbstractConnection, url: URL) -> None:
        """Let channels use the connection until it is lost."""
        try:
            await self._hold(connection, url)
        finally:
            self._connection = self._lost = None
            self._up.clear()
            metrics.CONNECTED.labels("rabbitmq").set(0)
            await self._end(connection)

    async def _connect_any(self) -> tuple[AbstractConnection, URL] | None:
        """Try every node once, in random order."""
        for url in random.sample(self._urls, len(self._urls)):
            try:
                with broker_errors("connecting"):
                    named = url.update_query(name=self._name)
                    connection = await connect(named, self._connect_timeout, self._make_context)
            except BrokerUnavailable as error:
                self._tell("broker.unreachable", node(url), reason_of(error.__cause__ or error, url))
            except Exception as error:  # noqa: BLE001 - a supervisor outlives every error of the library
                self._tell("broker.unreachable", node(url), reason_of(error, url))
            else:
                self._tell("broker.connected", node(url), "")
                return connection, url
        return None

    async def _hold(self, connection: AbstractConnection, url: URL) -> None:
        """Announce the connection, then wait until it ends or somebody drops it."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_close(_: object, error: BaseException | None) -> None:
            if not lost.done():
                lost.set_result("the broker closed it" if error is None else reason_of(error, url))

        connection.close_callbacks.add(on_close)
        if connection.is_closed:
            on_close(connection, None)
        self._connection, self._lost = connection, lost
        self._up.set()
        metrics.CONNECTED.labels("rabbitmq").set(1)
        try:
            reason = await asyncio.shield(lost)
        finally:
            if not lost.done():
                lost.set_result("this side closed it")
        self._tell("broker.lost", node(url), reason)

    async def _end(self, connection: AbstractConnection) -> None:
        """Leave nothing of a connection behind; say goodbye when it still listens."""
        with contextlib.suppress(BrokerUnavailable), broker_errors("closing the connection"):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await connection.close()

    def _tell(self, event: str, address: str, reason: str) -> None:
        """Log a change of state, and each way in which a node cannot be reached only once until the next change."""
        if event != "broker.unreachable":
            self._told.clear()
        elif f"{address} {reason}" in self._told:
            return
        else:
            self._told.add(f"{address} {reason}")
        if event == "broker.connected":
            log.info("broker.connected", node=address)
        elif event == "broker.lost":
            log.warning("broker.lost", node=address, reason=reason)
        else:
            log.warning("broker.unreachable", node=address, reason=reason)
