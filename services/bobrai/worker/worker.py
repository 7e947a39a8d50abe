"""One worker: its parts, how they hear of each other, and how it drains.

In: an open database, a started broker, a registry. Out: a running consumer, until ``drain``. ``main.py`` gives it what
it needs; ``heartbeat`` calls it back from its thread, through the main loop.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

from bobrai.broker.port import Broker
from bobrai.domain.errors import StoreRejected, Unavailable
from bobrai.domain.message import Hint
from bobrai.handlers import registry as handlers
from bobrai.handlers.registry import Registry
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import outbox, workers
from bobrai.store.admissions import Names
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics, traces
from bobrai.worker import batching, recycle, unconsumed
from bobrai.worker.blocked import LoopWatch
from bobrai.worker.children import Children
from bobrai.worker.claims import Claims
from bobrai.worker.completions import Completions
from bobrai.worker.default_executor import DefaultExecutor
from bobrai.worker.executor import INTERRUPT_GRACE_SECONDS, Executor
from bobrai.worker.heartbeat import Heartbeat
from bobrai.worker.intake import Intake
from bobrai.worker.isolation import Isolation
from bobrai.worker.lease import Lease
from bobrai.worker.limited import Limited
from bobrai.worker.orphans import LOOK_SECONDS, Orphans
from bobrai.worker.progress import ProgressReports
from bobrai.worker.speeds import Speeds
from bobrai.worker.transaction import AttemptTransaction

log = logs.get_logger(__name__)

TEND_SECONDS = 0.25
PAUSE_SECONDS = 5.0  # longest wait for the broker to stop delivering
WRITE_SECONDS = 10.0  # for the outcomes of what was interrupted, beyond the drain time


class Worker:
    """The parts of a worker process. Make it inside the main event loop."""

    def __init__(
        self, settings: Settings, database: Database, handlers_database: Database, broker: Broker, registry: Registry
    ) -> None:
        self._settings = settings.worker
        self._database = database
        self._broker = broker
        self._types = registry.types()
        self._in_processes = any(handler.runs_in == "process" for handler in registry)
        slots = settings.worker.concurrency
        batching.warn(registry, slots)
        self.lease = Lease()
        self.watch = LoopWatch(settings.worker.blocked_seconds)
        self._limited = Limited(database, 3 * settings.worker.heartbeat_seconds)
        self._speeds = Speeds(slots)
        places = asyncio.Semaphore(settings.database.pool_size)
        reports = ProgressReports(database, self.lease)
        children = Children(database, registry)
        # Handlers that were declared elsewhere than in modules cannot be found by another process.
        self._isolation = Isolation(settings, reports.report) if registry is handlers.default else None
        self.executor = Executor(
            registry,
            slots,
            reports,
            self._speeds,
            lambda: AttemptTransaction(handlers_database, places, children),
            new_span=lambda claim: traces.attempt(claim, settings.trace.link_after_seconds),
            isolation=self._isolation,
        )
        self.executor.completions = Completions(
            database, self.lease, self._limited, children, self.executor.settled, self.on_unwritable
        )
        self.claims = Claims(database, self.lease, self.executor, self._limited, self._room, self.on_gone)
        self.executor.on_room = self.claims.pump
        self.heartbeat = Heartbeat(
            settings,
            host=socket.gethostname(),
            types=[handler.name for handler in registry],
            running=lambda: self.executor.running,
            listener=self,
            watch=self.watch,
        )
        self._registered = asyncio.Event()
        self._default_executor = DefaultExecutor(slots)
        asyncio.get_running_loop().set_default_executor(self._default_executor)
        self._ending_lease: asyncio.Task[None] | None = None
        self._round_at = time.monotonic()
        self._was_waiting = False

    # What the heartbeat says.

    def on_registered(self, worker_id: int) -> None:
        """Claim under this id from now on."""
        self.lease.worker_id = worker_id
        self._speeds.forget_reports()
        self._registered.set()
        log.info(
            "worker.registered",
            worker_id=worker_id,
            queues=list(self._settings.queues),
            concurrency=self._settings.concurrency,
        )
        self.claims.pump()

    def on_gone(self, worker_id: int) -> None:
        """The lease is lost: stop everything that ran under it, then start over."""
        if self.lease.worker_id == worker_id:
            self.lease.worker_id = None
            metrics.LEASES_LOST.inc()
            log.warning("worker.lease_lost", worker_id=worker_id, dropped=self.executor.unsettled)
            self.executor.drop_all()
        self.heartbeat.register(worker_id)

    def on_cancels(self, task_ids: list[int]) -> None:
        """Stop what users want stopped."""
        self.executor.cancel(task_ids)

    def on_limits(self, names: Names) -> None:
        """Claim what is limited only with its admission."""
        self._limited.learn(names)

    # What the completions say.

    def on_unwritable(self, worker_id: int) -> None:
        """An outcome cannot be written: end the lease gently, so that the reaper takes its task, and start over."""
        if self._ending_lease is None and not self.executor.draining and self.lease.worker_id == worker_id:
            self._ending_lease = asyncio.create_task(self._end_lease(worker_id))

    async def _end_lease(self, worker_id: int) -> None:
        log.error("worker.lease_given_up", worker_id=worker_id, running=self.executor.running)
        try:
            await self.claims.stop()
            self.executor.give_back_ready()
            await self._until(lambda: self.executor.running == 0, self._settings.drain_seconds)
            self.heartbeat.release(worker_id)
            await self._until(lambda: self.lease.worker_id != worker_id, self._settings.lease_seconds)
        finally:
            self._ending_lease = None
            self.claims.paused = self.executor.draining
            self.claims.pump()

    # Life.

    async def registered(self) -> None:
        """Return once this worker has a row."""
        await self._registered.wait()

    def consume(self) -> None:
        """Subscribe to every queue."""
        if self._isolation is not None and self._in_processes:
            self._isolation.keep_warm()
        for queue in self._settings.queues:
            self.claims.intakes[queue] = Intake(self._broker, queue, self.executor, self.claims.pump)

    @property
    def is_consuming(self) -> bool:
        """Whether every queue is being consumed."""
        intakes = self.claims.intakes.values()
        return bool(intakes) and all(intake.subscription.consuming for intake in intakes)

    async def tend_until(self, stop: Stop) -> None:
        """Look after speeds, prefetches, old hints, orphans and unconsumed queues; ask for a stop in time."""
        orphans = Orphans(self._database, self.lease, self.executor, self.claims.may_come)
        queues = unconsumed.Unconsumed(self._database, self._types)
        await asyncio.gather(
            PeriodicLoop("worker-tend", TEND_SECONDS, lambda: self._tend(stop)).run(stop),
            PeriodicLoop("worker-orphans", LOOK_SECONDS, orphans.look).run(stop),
            PeriodicLoop("worker-queues", unconsumed.LOOK_SECONDS, queues.look).run(stop),
        )

    async def drain(self) -> None:
        """Take nothing new, finish what runs within the drain time, give back the rest, and wait for the writes."""
        ends = time.monotonic() + self._settings.drain_seconds
        log.info("worker.draining", running=self.executor.running)
        self.executor.draining = True
        self.executor.give_back_ready()
        await asyncio.gather(self.claims.stop(), self._pause())
        await self._release(everything=True)
        if not await self._until(lambda: self.executor.running == 0, ends - time.monotonic()):
            log.warning("worker.interrupting", running=self.executor.running)
            self.executor.interrupt_all()
            await self._until(lambda: self.executor.running == 0, INTERRUPT_GRACE_SECONDS + 1)
        # As long as the lease lives nobody else has these tasks, and their results are finished work.
        left = max(ends - time.monotonic(), WRITE_SECONDS)
        if not await self._until(lambda: self.executor.unsettled == 0, left):
            log.error("worker.outcomes_unwritten", count=self.executor.unsettled, hint="the lease expires by itself")
        for intake in self.claims.intakes.values():
            await intake.subscription.close()

    async def _pause(self) -> None:
        pauses = [intake.subscription.pause() for intake in self.claims.intakes.values()]
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await asyncio.gather(*pauses)
        except TimeoutError:
            log.warning("worker.pause_unanswered", hint="the broker does not answer; going on without it")

    @staticmethod
    async def _until(condition: Callable[[], bool], seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= ends:
                return False
            await asyncio.sleep(0.02)
        return True

    def _room(self) -> int:
        """Claims that are welcome now: free slots and 20 ms of work ahead."""
        return self.executor.free + self._speeds.claim_ahead - self.executor.ready

    async def _tend(self, stop: Stop) -> None:
        now = time.monotonic()
        self._default_executor.tend()
        waiting = any(intake.waiting for intake in self.claims.intakes.values()) or self.executor.ready > 0
        self._speeds.end_round(now - self._round_at, saturated=waiting and self._was_waiting)
        self._round_at, self._was_waiting = now, waiting
        early = sum(intake.early for intake in self.claims.intakes.values())
        for intake in self.claims.intakes.values():
            intake.tend(now, early - intake.early)
        reason = recycle.reason_to(
            ended=self.executor.ended,
            max_tasks=self._settings.max_tasks,
            max_memory_mib=self._settings.max_memory_mib,
        )
        if reason:
            log.info("worker.recycling", reason=reason)
            stop.request("recycling")
        await self._release()
        await self._report_speeds()
        self.claims.pump()

    async def _report_speeds(self) -> None:
        speeds = self._speeds.changed()
        if speeds and self.lease.worker_id is not None:
            await workers.report_speeds(self._database, self.lease.worker_id, speeds)
            self._speeds.reported(speeds)

    async def _release(self, *, everything: bool = False) -> None:
        """Give back hints that wait too long; they stay here when the database is away."""
        now = None if everything else time.monotonic()
        for intake in self.claims.intakes.values():
            hints: Sequence[Hint] = intake.take_old(self.claims.unsure, now=now)
            if not hints:
                continue
            try:
                await outbox.release_hints(self._database, hints)
            except (Unavailable, StoreRejected) as error:
                intake.put_back(hints)
                if not everything:
                    raise
                log.warning("worker.hints_unreleased", count=len(hints), error=str(error))
            else:
                intake.released(hints)
