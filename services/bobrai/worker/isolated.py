"""The inside of a process in which tasks of a worker run alone.

In: attempts from the worker, over a pair of sockets, one at a time. Out: what they report, and how they ended. It ends
with its worker, whatever a handler does. It reaches PostgreSQL for a handler's transaction only; the lease and the
writing of outcomes stay with the worker.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

from bobrai.domain.task import Outcome
from bobrai.handlers.registry import Registry
from bobrai.runtime.outage import Outage
from bobrai.settings import Settings
from bobrai.store.pool import Database
from bobrai.telemetry import traces
from bobrai.worker import memory, output, unanswered
from bobrai.worker.attempt import Claimed
from bobrai.worker.channel import Channel, Ended, Progress, Ready, Run, Stop, receive_settings
from bobrai.worker.children import Children
from bobrai.worker.default_executor import DefaultExecutor
from bobrai.worker.executor import Executor
from bobrai.worker.lease import Lease
from bobrai.worker.lifespan import STOP_SECONDS, Lifespan
from bobrai.worker.speeds import Speeds
from bobrai.worker.transaction import AttemptTransaction
from bobrai.worker.wear import Wear

_PR_SET_PDEATHSIG: Final = 1
_TEND_SECONDS: Final = 0.25


def end_with_parent() -> None:
    """Bind this process to the life of the one that has started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def attach(descriptor: int) -> tuple[socket.socket, Settings]:
    """Bind this process to its worker; returns the socket that leads there, and the settings that came over it."""
    end_with_parent()
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keywords
    connection = socket.socket(fileno=descriptor)
    return connection, receive_settings(connection)


async def serve(connection: socket.socket, settings: Settings, registry: Registry) -> None:
    """Run attempts until the worker hangs up."""
    channel = await Channel.over(connection)
    database = Database(settings.database, pool_size=2, name="bobrai-isolated")
    await database.open()
    threads = DefaultExecutor(settings.worker.concurrency)
    wear = Wear(threads)
    results = _Results(channel, database, wear)
    places = asyncio.Semaphore(1)
    children = Children(database, registry)
    executor = Executor(
        registry,
        1,
        _Reports(channel),
        Speeds(1),
        lambda: AttemptTransaction(database, places, children),
        new_span=lambda claim: traces.within(claim.trace_context),
    )
    executor.completions = results
    results.on_settled = executor.settled
    memory.offer_first()
    # As in the worker: handlers that use threads of asyncio need as many, and ones that heal.
    asyncio.get_running_loop().set_default_executor(threads)
    tending = asyncio.create_task(_tend(threads))
    lifespan = Lifespan(registry)
    await lifespan.start(settings.worker.startup_seconds)
    wear.begin()
    channel.send(Ready())
    task_id = 0
    while (message := await channel.receive()) is not None:
        match message:
            case Run(claim, worker_id, spare_bytes):
                memory.allow(spare_bytes)
                memory.begin_peak()
                task_id, results.lease.worker_id = claim.task_id, worker_id
                executor.admit(claim, _Held(), worker_id)
            case Stop(cancelled=True):
                executor.cancel([task_id])
            case Stop():
                executor.interrupt_all()
    tending.cancel()
    if executor.unsettled:
        os._exit(1)  # the worker is gone, and nobody wants to know any more
    await lifespan.stop(STOP_SECONDS)
    await database.close()


async def _tend(threads: DefaultExecutor) -> None:
    while True:
        await asyncio.sleep(_TEND_SECONDS)
        threads.tend()


class _Held:
    """There is no delivery here."""

    def settle(self) -> None:
        """Nothing waits for it."""


class _Reports:
    """Progress, on its way to the worker, which writes it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: dict[tuple[int, int], str] = {}  # by task and attempt: a thread may report of one that is over

    def report(self, task_id: int, attempt: int, text: str) -> None:
        """Replace what is not sent yet; may be called from any thread."""
        with self._lock:
            first = not self._latest
            self._latest[task_id, attempt] = text
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._send)

    def take(self, task_id: int, attempt: int) -> str | None:
        """Return what is not sent yet, and leave it to the outcome."""
        with self._lock:
            return self._latest.pop((task_id, attempt), None)

    def _send(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, {}
        for (task_id, attempt), text in latest.items():
            self._channel.send(Progress(task_id, attempt, text))


class _Results:
    """Outcomes, on their way to the worker, which writes them."""

    def __init__(self, channel: Channel, database: Database, wear: Wear) -> None:
        self.lease = Lease()
        self.on_settled: Callable[[Claimed], None] = lambda _attempt: None
        self._channel = channel
        self._database = database
        self._outage = Outage("completions")
        self._wear = wear

    def write(self, attempt: Claimed, outcome: Outcome) -> None:
        """Send an outcome to be written."""
        self._end(attempt, Ended(outcome))

    def written(self, attempt: Claimed, outcome: Outcome, status: str) -> None:  # noqa: ARG002 - the worker knows it
        """Send an outcome that is committed."""
        self._end(attempt, Ended(outcome, written=True))

    def lost(self, attempt: Claimed) -> None:
        """Say that the claim was lost."""
        self._end(attempt, Ended(None))

    async def is_settled(self, worker_id: int, outcome: Outcome) -> bool:
        """Return whether an outcome whose commit was not answered is there."""
        return await unanswered.is_settled(self._database, self.lease, self._outage, worker_id, outcome)

    def _end(self, attempt: Claimed, ended: Ended) -> None:
        output.flush()
        ended.leftovers, ended.is_worn = self._wear.has_leftovers(), self._wear.is_changed()
        ended.resident_bytes, ended.peak_bytes = memory.resident_bytes(), memory.peak_bytes()
        self._channel.send(ended)
        self.on_settled(attempt)
