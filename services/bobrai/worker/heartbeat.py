"""Keeps the lease, from a thread with its own event loop and connection, whatever blocks the main loop.

In: settings, and how many attempts run. Out, called in the main loop: the new worker's id, the tasks that users want
cancelled, and the loss of the lease. While PostgreSQL is away it keeps trying.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from bobrai.domain.errors import Unavailable, WorkerGone
from bobrai.runtime import event_loop
from bobrai.runtime.outage import Outage
from bobrai.settings import Settings
from bobrai.store import admissions, workers
from bobrai.store.admissions import Names
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics
from bobrai.worker.blocked import LoopWatch

log = logs.get_logger(__name__)

_UNREGISTER_SECONDS = 3.0
_RETRY_SECONDS = 1.0


class Listener(Protocol):
    """Who hears of the lease; called in the main loop."""

    def on_registered(self, worker_id: int) -> None:
        """The worker has a row under this id."""

    def on_gone(self, worker_id: int) -> None:
        """The row is gone. Answer with ``register`` once nothing of it runs any more."""

    def on_cancels(self, task_ids: list[int]) -> None:
        """Users want these tasks stopped; repeated until their attempts have ended."""

    def on_limits(self, names: Names) -> None:
        """These queues and types are limited; said before ``on_registered``, and with every beat."""


class Heartbeat:
    """The thread that holds this worker's row in ``workers``."""

    def __init__(
        self,
        settings: Settings,
        *,
        host: str,
        types: Sequence[str],
        running: Callable[[], int],
        listener: Listener,
        watch: LoopWatch,
    ) -> None:
        self._settings = settings.worker
        self._types = types
        self._host = host
        self._running = running
        self._listener = listener
        self._watch = watch
        self._database = Database(settings.database, pool_size=1, name="bobrai-heartbeat")
        self._outage = Outage("heartbeat")
        self._connected = metrics.CONNECTED.labels("database")
        self._main = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._loop = event_loop.new()
        self._wake = asyncio.Event()  # of the thread's loop
        self._stopping = False
        self._may_register = True
        self._releasing: int | None = None  # the row that is to go
        self._worker_id: int | None = None
        self._renewed_at = -float("inf")
        self._thread = threading.Thread(target=self._serve, name="heartbeat", daemon=True)

    @property
    def holds_lease(self) -> bool:
        """Whether the row is certainly still there."""
        return self._worker_id is not None and time.monotonic() - self._renewed_at < self._settings.lease_seconds

    @property
    def reaches_database(self) -> bool:
        """Whether the last heartbeat was answered."""
        return not self._outage.is_on and self._renewed_at > 0

    def start(self) -> None:
        """Register, and renew from then on."""
        self._thread.start()

    def register(self, lost: int) -> None:
        """Start over under a new id, in place of the one that was lost."""
        self._in_thread(self._register_again, lost)

    def release(self, worker_id: int) -> None:
        """Remove the row now; the listener hears that it is gone."""
        self._in_thread(self._release, worker_id)

    async def stop(self) -> None:
        """Remove the row and end the thread; returns after a few seconds at most."""
        if not self._thread.is_alive():
            return
        self._in_thread(self._stop)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_UNREGISTER_SECONDS + 2):
                await self._ended.wait()

    def _in_thread(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the thread's loop is closed: it has ended
            self._loop.call_soon_threadsafe(call, *arguments)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the main loop is closed: the process is about to end
            self._main.call_soon_threadsafe(call, *arguments)

    # From here on: in the thread.

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _release(self, worker_id: int) -> None:
        self._releasing = worker_id
        self._wake.set()

    def _register_again(self, lost: int) -> None:
        if self._worker_id in {lost, None}:
            self._worker_id = None
            self._may_register = True
            self._wake.set()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._beat_until_stopped())
        except Exception:
            log.exception("heartbeat.failed")
        finally:
            self._loop.close()
            self._tell(self._ended.set)

    async def _beat_until_stopped(self) -> None:
        await self._database.open()
        watching = self._loop.create_task(self._watch.watch())
        while not self._stopping:
            self._wake.clear()
            pause = await self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        watching.cancel()
        await self._unregister()
        await self._database.close()

    async def _beat(self) -> float:
        """Register, renew or give up; returns the seconds until the next beat."""
        sent_at = time.monotonic()
        worker_id = self._worker_id
        try:
            if worker_id is not None and worker_id == self._releasing:
                await workers.unregister(self._database, worker_id)
                raise WorkerGone(f"worker {worker_id} gave its row up")
            if worker_id is not None:
                await self._renew(worker_id, sent_at)
            elif self._may_register:
                await self._register(sent_at)
        except WorkerGone:
            self._worker_id = None
            self._may_register = False
            self._tell(self._listener.on_gone, worker_id)
        except Exception as error:  # noqa: BLE001 - the lease must outlive every surprise; the next beat may fare better
            self._outage.failed(error)
            self._connected.set(0)
            return min(_RETRY_SECONDS, self._settings.heartbeat_seconds)
        return self._settings.heartbeat_seconds

    async def _register(self, sent_at: float) -> None:
        settings = self._settings
        queues: Sequence[str] = settings.queues
        limited = await admissions.names(self._database)
        self._worker_id = await workers.register(
            self._database,
            queues=queues,
            host=self._host,
            concurrency=settings.concurrency,
            lease_seconds=settings.lease_seconds,
            types=self._types,
        )
        self._may_register = False
        self._answered(sent_at)
        self._tell(self._listener.on_limits, limited)
        self._tell(self._listener.on_registered, self._worker_id)

    async def _renew(self, worker_id: int, sent_at: float) -> None:
        cancels = await workers.heartbeat(
            self._database, worker_id, lease_seconds=self._settings.lease_seconds, running=self._running()
        )
        self._answered(sent_at)
        if cancels:
            self._tell(self._listener.on_cancels, cancels)
        self._tell(self._listener.on_limits, await admissions.names(self._database))

    def _answered(self, sent_at: float) -> None:
        self._outage.over()
        self._connected.set(1)
        self._renewed_at = sent_at

    async def _unregister(self) -> None:
        if self._worker_id is None:
            return
        try:
            async with asyncio.timeout(_UNREGISTER_SECONDS):
                await workers.unregister(self._database, self._worker_id)
        except (Unavailable, TimeoutError) as error:
            log.warning("worker.unregister_failed", error=str(error), hint="the lease expires by itself")
