"""How an attempt ended, in words that the store writes: pure rules, no I/O.

In: a claim and the exception, or the cause of a stop. Out: an Outcome, whose error is bounded in size.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

from msgspec import structs

from bobrai.domain import limits
from bobrai.domain.children import Child
from bobrai.domain.errors import PermanentFailure, RetryLater, StoreRejected
from bobrai.domain.task import AttemptError, Claim, Outcome, OutcomeKind
from bobrai.handlers.batches import RetryItem
from bobrai.handlers.codec import InvalidPayload, InvalidResult
from bobrai.telemetry import masking, rendering
from bobrai.worker.attempt import StopCause

UNKNOWN_TYPE_DELAY_SECONDS = 5.0
NO_PLACE_DELAY_SECONDS = 2.0
KEPT_AWAY_DELAY_SECONDS = 2.0
_FRAMES = 40  # of each traceback, the innermost ones
_MOST_LEAVES = 10_000  # exceptions in one group that are looked at


def done(claim: Claim, result: str, children: tuple[Child, ...] = ()) -> Outcome:
    """The handler returned."""
    return Outcome(claim.task_id, claim.attempt, OutcomeKind.DONE, result, children=children)


def stopped(claim: Claim, cause: StopCause) -> Outcome:
    """The attempt was told to end; what the handler made of that does not matter."""
    if cause is StopCause.TIMEOUT and claim.ends_with_task:
        return failed(claim, AttemptError("Deadline", "the task's deadline passed while it ran", reason="deadline"))
    if cause is StopCause.TIMEOUT:
        message = f"the attempt took longer than its timeout of {claim.timeout_seconds:g} s"
        return again(claim, AttemptError("Timeout", message, reason="timeout"))
    kind = OutcomeKind.CANCELLED if cause is StopCause.CANCELLED else OutcomeKind.INTERRUPTED
    return Outcome(claim.task_id, claim.attempt, kind)


def unknown_type(claim: Claim) -> Outcome:
    """This worker has no handler for the type: give the task back for another worker."""
    return Outcome(claim.task_id, claim.attempt, OutcomeKind.INTERRUPTED, delay_seconds=UNKNOWN_TYPE_DELAY_SECONDS)


def no_place(claim: Claim) -> Outcome:
    """This worker runs as many isolated tasks as it can: give the task back for whoever has a place first."""
    delay = NO_PLACE_DELAY_SECONDS * random.uniform(0.5, 1.5)
    return Outcome(claim.task_id, claim.attempt, OutcomeKind.INTERRUPTED, delay_seconds=delay)


def kept_away(claim: Claim) -> Outcome:
    """The outcome's row could not be changed: give the task back, not at once, since this may have to be repeated."""
    return Outcome(claim.task_id, claim.attempt, OutcomeKind.INTERRUPTED, delay_seconds=KEPT_AWAY_DELAY_SECONDS)


def died(claim: Claim, how: str, traceback: str) -> Outcome:
    """The task ran alone and its process is gone: this attempt is to blame."""
    message = f"the process that ran this attempt alone {how} (worker_lost)"
    return again(claim, AttemptError("ProcessDied", message, _last_words(traceback), "worker_lost"))


def crashed(claim: Claim, how: str, reason: str, traceback: str) -> Outcome:
    """The handler's process is gone; ``reason`` is ``crashed`` or ``memory_limit``."""
    return again(claim, AttemptError("ProcessDied", f"the process {how}", _last_words(traceback), reason))


def _last_words(traceback: str) -> str:
    return masking.bounded(rendering.scrubbed(traceback), limits.MAX_TRACEBACK)


def raised(claim: Claim, error: BaseException, non_retryable: tuple[type[BaseException], ...] = ()) -> Outcome:
    """The handler raised: final, after a delay of its choosing, or retried by policy.

    What is in a group, at whatever depth, counts as if it had been raised alone: a PermanentFailure before all else,
    then an exception that the handler's declaration calls non-retryable, then the RetryLater with the longest delay.
    """
    try:
        return _raised(claim, error, non_retryable)
    except BaseException:  # noqa: BLE001 - an exception of a handler's own class may do anything when it is looked at
        return again(claim, describe(error, "error"))


def _raised(claim: Claim, error: BaseException, non_retryable: tuple[type[BaseException], ...]) -> Outcome:
    together = list(_leaves(error))
    for each in together:
        if issubclass(type(each), PermanentFailure):  # not isinstance(): an object may lie about its class
            return failed(claim, describe(error, _permanent_reason(each)))
    retryable = (RetryLater, RetryItem)  # whatever the declaration says
    if any(issubclass(type(each), non_retryable) and not issubclass(type(each), retryable) for each in together):
        return failed(claim, describe(error, "non_retryable"))
    wishes = [_delay(each) for each in together if issubclass(type(each), RetryLater)]
    delays = [delay for delay in wishes if delay is not None]
    if not wishes:
        return again(claim, describe(error, "error"))
    delay = min(max(delays), float(limits.MAX_DELAY_SECONDS)) if delays else None
    return later(claim, describe(error, "retry_later"), delay)


def _delay(error: BaseException) -> float | None:
    """Return the delay that a RetryLater asks for; a subclass may have forgotten it, or say what is none."""
    try:
        delay = math.fsum([error.delay])  # type: ignore[attr-defined]  # unlike float(), it reads no text
    except BaseException:  # noqa: BLE001 - as in `raised`
        return None
    return delay if math.isfinite(delay) and delay >= 0 else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Return what a group holds, at whatever depth and each once, or the exception itself."""
    waiting = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LEAVES:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if issubclass(type(each), BaseExceptionGroup):
            # The group's own members, whatever a subclass calls so.
            waiting.extend(reversed(BaseExceptionGroup.exceptions.__get__(each)))
        else:
            yield each


def again(claim: Claim, error: AttemptError, delay_seconds: float | None = None) -> Outcome:
    """Another attempt by the retry policy or after the delay; a failure when this was the last one."""
    if claim.attempt >= claim.max_attempts:
        return failed(claim, error)
    return _pending(claim, OutcomeKind.RETRY, error, delay_seconds)


def later(claim: Claim, error: AttemptError, delay_seconds: float | None) -> Outcome:
    """Another start after the delay, which costs no attempt; a failed attempt when there were too many of these."""
    if claim.snoozes >= limits.MAX_SNOOZES:
        return again(claim, error, delay_seconds)
    return _pending(claim, OutcomeKind.SNOOZE, error, delay_seconds)


def _pending(claim: Claim, kind: OutcomeKind, error: AttemptError, delay_seconds: float | None) -> Outcome:
    delay = claim.retry.delay_after(claim.failures + 1) if delay_seconds is None else delay_seconds
    return Outcome(claim.task_id, claim.attempt, kind, error=error, delay_seconds=delay)


def failed(claim: Claim, error: AttemptError) -> Outcome:
    """No attempt will follow."""
    return Outcome(claim.task_id, claim.attempt, OutcomeKind.FAILED, error=error)


def plainer(outcome: Outcome, error: Exception) -> Outcome | None:
    """What to store in place of values that PostgreSQL refuses, since the attempt must end; None: nothing is left.

    Without a progress report; instead of a result a permanent failure; of an error less, and then nothing.
    """
    if outcome.progress is not None:
        return structs.replace(outcome, progress=None)
    if outcome.kind is OutcomeKind.DONE:
        message = masking.bounded(_shown(error), limits.MAX_ERROR_MESSAGE)
        reason = AttemptError("InvalidResult", message, reason="invalid_result")
        return Outcome(outcome.task_id, outcome.attempt, OutcomeKind.FAILED, error=reason)
    if outcome.error is None:
        return None
    plain = replace(outcome.error, type="Error", message="the error could not be stored", traceback="")
    return structs.replace(outcome, error=None if outcome.error == plain else plain)


def describe(error: BaseException, reason: str) -> AttemptError:
    """Return type, message and traceback, each within its limit, whatever the exception does when it is shown.

    Credentials are masked, as in logs: whoever may read a task need not know them.
    """
    hidden = issubclass(type(error), InvalidPayload | InvalidResult | StoreRejected)  # no line of the handler is in it
    return AttemptError(
        masking.bounded(rendering.scrubbed(rendering.type_of(error)), limits.MAX_ERROR_MESSAGE),
        masking.bounded(_shown(error), limits.MAX_ERROR_MESSAGE),
        "" if hidden else masking.bounded(_traceback(error), limits.MAX_TRACEBACK, keep_end=True),
        reason,
    )


def _permanent_reason(error: BaseException) -> str:
    if issubclass(type(error), InvalidPayload):
        return "invalid_payload"
    return "invalid_result" if issubclass(type(error), InvalidResult) else "permanent"


def _shown(error: BaseException) -> str:
    try:
        return rendering.scrubbed(rendering.exact(str(error)))
    except BaseException:  # noqa: BLE001 - a handler's exception may fail to show itself, by whatever it likes
        return "(the exception has no readable message)"


def _traceback(error: BaseException) -> str:
    try:
        # Its end names the exception and the line that raised it.
        return rendering.scrubbed(rendering.formatted(error, _handlers_own(error.__traceback__), _FRAMES))
    except BaseException:  # noqa: BLE001 - the same: it is formatted by calling into it
        return ""


def _handlers_own(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the worker's frames that called the handler."""
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    return frames


def _is_ours(frames: TracebackType) -> bool:
    name = str(frames.tb_frame.f_globals.get("__name__", ""))
    return name.startswith("bobrai.worker.") or name == "bobrai.handlers.handler"
