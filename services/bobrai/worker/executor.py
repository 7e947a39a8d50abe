"""Runs attempts: at most as many handlers at once as there are slots, each under its timeout.

In: claims. Out: outcomes, to ``completions``. An async handler is an asyncio task, a plain one runs in a thread. What
does not end when it is told to loses its slot and its say: another attempt takes the place, and what it returns later
is dropped. Some run in a process of their own (`isolation.py`).
"""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import structs

from bobrai.domain.errors import ClaimLost, DatabaseUnavailable
from bobrai.domain.task import Claim, Outcome, OutcomeKind
from bobrai.handlers.registry import Registry
from bobrai.runtime import event_loop, forks
from bobrai.runtime.checkpoint import checkpoint
from bobrai.telemetry import logs, metrics, traces
from bobrai.telemetry.spans import AttemptSpan
from bobrai.worker import alone, calling, meters, outcomes, telling
from bobrai.worker.attempt import Attempt, Claimed, Settleable, StopCause, fields_of
from bobrai.worker.channel import Ended
from bobrai.worker.child import ProcessDied
from bobrai.worker.isolation import Isolation
from bobrai.worker.place import Place
from bobrai.worker.ports import Reports, Results
from bobrai.worker.services import HandlerServices
from bobrai.worker.speeds import Speeds
from bobrai.worker.transaction import Transaction

log = logs.get_logger(__name__)

GRACE_SECONDS = 5.0  # for a handler to end after it was told to
PROCESS_GRACE_SECONDS = 1.0  # the same where the handler's process is ended then
INTERRUPT_GRACE_SECONDS = 2.0  # the same when the process is about to exit


class Executor:
    """The slots of this worker and what is in them."""

    def __init__(
        self,
        registry: Registry,
        slots: int,
        progress: Reports,
        speeds: Speeds,
        new_transaction: Callable[[], Transaction],
        grace_seconds: float = GRACE_SECONDS,
        *,
        new_span: Callable[[Claim], AttemptSpan | None] = lambda _claim: None,
        isolation: Isolation | None = None,
    ) -> None:
        self.completions: Results  # set once both exist: each hears from the other
        self.on_room: Callable[[], None] = lambda: None
        self.slots = slots
        self.running = 0
        self.ended = 0  # attempts since the start of this process
        self.draining = False  # start nothing more
        self._attempts: dict[int, Attempt] = {}  # by task, from the claim until the outcome is written
        self._ready: deque[Attempt] = deque()
        self._stuck: set[asyncio.Task[None]] = set()
        self._unknown: set[str] = set()
        self._registry = registry
        self._middlewares = registry.middlewares.all
        self._progress = progress
        self._speeds = speeds
        self._services = HandlerServices(registry, progress, new_transaction, self._attempts.get)
        self._grace_seconds = grace_seconds
        self._new_span = new_span
        self._isolation = isolation
        self._calls = calling.Calls(registry.middlewares.all, slots)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._background: set[asyncio.Task[None]] = set()
        metrics.WORKER_SLOTS.set(slots)
        metrics.WORKER_BUSY.set_function(lambda: self.running)
        metrics.WORKER_READY.set_function(lambda: self.ready)
        metrics.WORKER_UNSETTLED.set_function(lambda: self.unsettled)

    @property
    def free(self) -> int:
        """Slots that nothing uses now."""
        return self.slots - self.running

    @property
    def ready(self) -> int:
        """Claimed attempts that wait for a slot."""
        return len(self._ready)

    @property
    def unsettled(self) -> int:
        """Attempts whose outcome is not written yet."""
        return len(self._attempts)

    @property
    def held(self) -> list[int]:
        """The tasks in our hands."""
        return list(self._attempts)

    def has(self, task_id: int, attempt: int) -> bool:
        """Whether this attempt is in our hands."""
        return (there := self._attempts.get(task_id)) is not None and there.claim.attempt == attempt

    def admit(self, claim: Claim, held: Settleable, worker_id: int) -> None:
        """Start a claimed task, or let it wait for a slot; give it back when no handler is known."""
        handler = self._registry.get(claim.type)
        if handler is None:
            self._refuse(Claimed(claim, held, worker_id))
            return
        attempt = Attempt(claim, held, worker_id, handler)
        self._attempts[claim.task_id] = attempt
        apart = (claim.losses or handler.runs_in) and not self.draining
        if apart and self._isolation is not None and self._isolation.isolates(handler):
            attempt.place = self._isolation.place_for(claim, handler)
            if attempt.place is None:
                attempt.finished = True
                self.completions.write(attempt, outcomes.no_place(claim))
                return
        if self.draining:
            self._give_back(attempt)
        elif self.running < self.slots:
            self._start(attempt)
        else:
            self._ready.append(attempt)

    def settled(self, attempt: Claimed) -> None:
        """Forget an attempt whose outcome is written or dropped."""
        if self._attempts.get(attempt.claim.task_id) is attempt:
            del self._attempts[attempt.claim.task_id]
        if isinstance(attempt, Attempt) and attempt.place is not None:
            attempt.place.leave()
        attempt.held.settle()

    def cancel(self, task_ids: list[int]) -> None:
        """Stop the attempts of these tasks: their users wish it."""
        for task_id in task_ids:
            if (attempt := self._attempts.get(task_id)) is not None:
                self._stop(attempt, StopCause.CANCELLED)

    def drop_all(self) -> None:
        """Stop everything at once and write nothing of it: the lease is lost."""
        for attempt in list(self._attempts.values()):
            self._stop(attempt, StopCause.LOST)

    def interrupt_all(self) -> None:
        """Stop everything and give it back, uncounted: the process ends."""
        self._grace_seconds = min(self._grace_seconds, INTERRUPT_GRACE_SECONDS)
        for attempt in list(self._attempts.values()):
            self._stop(attempt, StopCause.INTERRUPTED)

    def give_back_ready(self) -> None:
        """Give back what is claimed and waits for a slot or a process, uncounted."""
        while self._ready:
            self._give_back(self._ready.popleft())
        for attempt in [each for each in self._attempts.values() if each.waits_for_process]:
            self._stop(attempt, StopCause.INTERRUPTED)
        self._loop.call_soon(self._calls.flush)  # what was started just now, too, has joined by then

    def close(self) -> None:
        """Let go of what does not end: the event loop must not wait for it."""
        self._calls.close()
        if self._isolation is not None:
            self._isolation.close()
        for task in self._stuck:
            event_loop.forget(task)

    # The way of one attempt.

    def _refuse(self, claimed: Claimed) -> None:
        kind = claimed.claim.type
        if kind not in self._unknown:
            self._unknown.add(kind)
            log.warning("task.type_unknown", hint="no handler module of this worker declares it", **claimed.fields())
        self.completions.write(claimed, outcomes.unknown_type(claimed.claim))

    def _give_back(self, attempt: Attempt) -> None:
        attempt.finished = True
        self.completions.write(attempt, outcomes.stopped(attempt.claim, StopCause.INTERRUPTED))

    def _start(self, attempt: Attempt) -> None:
        self.running += 1
        claim = attempt.claim
        meter = meters.of(claim.queue, claim.type)
        meter.started.inc()
        attempt.begin(self._services)
        if traces.on:
            attempt.span = self._new_span(claim)
        meter.wait_seconds.observe(claim.wait_seconds, attempt.trace_id)
        if attempt.place is None:
            self._set_timer(attempt)
            body = self._run(attempt)
        else:
            body = self._run_isolated(attempt, attempt.place)
        # Nothing that an earlier handler has put into its context gets into this one.
        attempt.task = self._loop.create_task(body, context=self._context.copy())
        # Whatever becomes of it: an attempt whose task is gone must not stay.
        attempt.task.add_done_callback(partial(self._task_ended, attempt), context=self._context)
        if logs.prints(logging.DEBUG):
            log.debug("task.started", **attempt.fields())

    async def _run(self, attempt: Attempt) -> None:
        """Run one handler; whatever it raises ends the attempt and nothing else."""
        logs.carry(partial(fields_of, attempt.claim))
        if attempt.span is not None:
            attempt.span.enter()
        claim, handler = attempt.claim, attempt.handler
        error: BaseException | None = None
        event_loop.inside_handler.set(True)
        try:
            if handler.is_direct and not self._middlewares:
                value = await handler.call(attempt.context, claim.payload)
            else:
                value, error = await self._calls.call(attempt)
            forks.end_if_child(error)
            if error is None:
                checkpoint("worker.handled")
                result = handler.encode(value)
        except BaseException as raised:  # noqa: BLE001 - also SystemExit, or a CancelledError of the handler's own
            forks.end_if_child(raised)
            error = raised
        returned = error is None and attempt.cause is None
        outcome = outcomes.done(claim, result, attempt.context.children) if returned else self._ended_by(attempt, error)
        del error  # with its traceback it leads back to this frame
        event_loop.inside_handler.set(False)
        if attempt.transaction is None:
            self._finish(attempt, outcome)
        else:
            await self._end_transaction(attempt, attempt.transaction, outcome)

    async def _run_isolated(self, attempt: Attempt, place: Place) -> None:
        """Let a process of its own run the attempt, or this one when none comes up."""
        try:
            ended = await alone.run(attempt, place, self._grace_of(attempt))
        except ProcessDied:
            ended = Ended(self._ended_by(attempt, None))
        if ended is not None:
            self._finish(attempt, None if attempt.cause is StopCause.LOST else ended.outcome, written=ended.written)
        elif place.is_declared:  # it may not hurt those that run here
            self._finish(attempt, self._ended_by(attempt, None) if attempt.cause else outcomes.no_place(attempt.claim))
        else:
            attempt.place = None
            place.leave()
            self._set_timer(attempt)
            await self._run(attempt)

    def _grace_of(self, attempt: Attempt) -> float:
        return min(self._grace_seconds, PROCESS_GRACE_SECONDS if attempt.handler.runs_in else self._grace_seconds)

    def _set_timer(self, attempt: Attempt) -> None:
        timeout = attempt.claim.timeout_seconds
        attempt.timer = self._loop.call_later(timeout, self._stop, attempt, StopCause.TIMEOUT)

    def _ended_by(self, attempt: Attempt, error: BaseException | None) -> Outcome | None:
        """Return the outcome of an attempt that did not simply return; None when it is to be dropped."""
        if attempt.cause is StopCause.LOST:
            return None
        if attempt.cause is not None:
            return outcomes.stopped(attempt.claim, attempt.cause)
        return outcomes.raised(attempt.claim, error or AssertionError("no reason"), attempt.handler.non_retryable)

    async def _end_transaction(self, attempt: Attempt, transaction: Transaction, outcome: Outcome | None) -> None:
        """Commit the handler's rows together with the outcome, or roll them back."""
        if attempt.finished or outcome is None or outcome.kind is not OutcomeKind.DONE or not transaction.is_open:
            try:
                await transaction.roll_back()
            finally:  # a handler may have cancelled the task that it runs in
                self._finish(attempt, outcome)
            return
        attempt.closing = True
        outcome = done = self._with_progress(outcome)
        written = False
        try:
            await transaction.complete(attempt.worker_id, done, attempt.claim, attempt.trace_context)
            written = True
        except ClaimLost:
            # Or its row was kept from being changed: then giving the task back is kept from it too, and tried again.
            outcome = outcomes.kept_away(attempt.claim)
        except DatabaseUnavailable as error:
            written = await self.completions.is_settled(attempt.worker_id, done)
            if not written:
                outcome = structs.replace(outcomes.raised(attempt.claim, error), progress=done.progress)
        except BaseException as error:  # noqa: BLE001 - a deferred constraint, for one, speaks at the commit
            outcome = structs.replace(outcomes.raised(attempt.claim, error), progress=done.progress)
        self._finish(attempt, outcome, written=written)

    def _finish(self, attempt: Attempt, outcome: Outcome | None, *, written: bool = False) -> None:
        """Free the slot and send the outcome on its way; only the first call for an attempt counts."""
        if attempt.finished:
            return
        attempt.finished = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        claim = attempt.claim
        seconds = attempt.ran_seconds = time.monotonic() - attempt.started
        self.running -= 1
        self.ended += 1
        self._speeds.add(claim.queue, seconds)
        meters.of(claim.queue, claim.type).run_seconds.observe(seconds, attempt.trace_id)
        if attempt.span is not None:
            attempt.span.end(outcome)
        if outcome is None:
            self.completions.lost(attempt)
        elif written:
            self.completions.written(attempt, outcome, outcome.kind.value)
        else:
            self.completions.write(attempt, self._with_progress(outcome))
        if self._ready and self.running < self.slots:
            self._start(self._ready.popleft())
        self.on_room()

    def _with_progress(self, outcome: Outcome) -> Outcome:
        report = self._progress.take(outcome.task_id, outcome.attempt)
        return outcome if report is None else structs.replace(outcome, progress=report)

    # Attempts that are told to end.

    def _stop(self, attempt: Attempt, cause: StopCause) -> None:
        if attempt.finished or attempt.closing or (attempt.cause is not None and cause is not StopCause.LOST):
            return
        already_told = attempt.cause is not None
        attempt.cause = cause
        if attempt.task is None:
            self._ready.remove(attempt)
            attempt.finished = True
            if cause is StopCause.LOST:
                self.completions.lost(attempt)
            else:
                self.completions.write(attempt, outcomes.stopped(attempt.claim, cause))
            return
        if attempt.place is not None:
            if not attempt.place.is_prepared:
                attempt.task.cancel()
            elif cause is StopCause.LOST:
                attempt.place.kill()
            else:
                grace = self._grace_of(attempt) + alone.ANSWER_SECONDS
                attempt.place.stop(cancelled=cause is StopCause.CANCELLED, grace_seconds=grace)
            return
        if already_told:
            return
        attempt.context.stop()
        if attempt.handler.is_async or attempt.handler.batch is not None:
            attempt.task.cancel()
        if cause is StopCause.TIMEOUT and not attempt.handler.is_async:
            self._abandon(attempt)
            return
        self._loop.call_later(self._grace_of(attempt), self._abandon, attempt)

    def _task_ended(self, attempt: Attempt, task: "asyncio.Task[None]") -> None:
        """Finish an attempt that has not come to it, as when it was cancelled before its first step."""
        if not attempt.finished:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            self._finish(attempt, self._ended_by(attempt, error))

    def _abandon(self, attempt: Attempt) -> None:
        """Take slot and say from a handler that was told to end and goes on."""
        if attempt.finished or attempt.closing or attempt.task is None:
            return
        if attempt.transaction is not None:
            attempt.transaction.abort()
            self._keep(self._loop.create_task(attempt.transaction.roll_back()), self._background)
        self._finish(attempt, self._ended_by(attempt, None))
        self._keep(attempt.task, self._stuck)
        just_told = attempt.cause is StopCause.TIMEOUT and not attempt.handler.is_async
        self._loop.call_later(self._grace_seconds if just_told else 0, self._report_deaf, attempt, attempt.task)

    def _report_deaf(self, attempt: Attempt, task: "asyncio.Task[None]") -> None:
        if not task.done():
            telling.deaf(attempt)
            if not attempt.handler.is_async:
                task.cancel()  # it only waits for the thread

    @staticmethod
    def _keep(task: "asyncio.Task[None]", there: "set[asyncio.Task[None]]") -> None:
        there.add(task)
        task.add_done_callback(there.discard)
