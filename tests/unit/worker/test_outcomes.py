"""The rules by which the end of an attempt becomes an outcome."""

import pytest

from bobrai import PermanentFailure, Retry, RetryLater
from bobrai.domain import limits
from bobrai.domain.task import Claim, Outcome, OutcomeKind
from bobrai.handlers.codec import InvalidPayload, InvalidResult
from bobrai.worker import outcomes
from bobrai.worker.attempt import StopCause


def claim(*, attempt: int = 1, max_attempts: int = 3, failures: int | None = None) -> Claim:
    policy = Retry(max_attempts=max_attempts, delay_seconds=4, factor=2, max_delay_seconds=100, jitter=0)
    before = attempt - 1 if failures is None else failures
    return Claim(1, attempt, "t", "default", 0, "null", max_attempts, before, policy, 30.0, "", "", 0.0, 0.0)


def summary(outcome: Outcome) -> tuple[OutcomeKind, str, float]:
    return outcome.kind, outcome.error.reason if outcome.error else "", outcome.delay_seconds


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


class WithoutDelay(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self, "it knows no delay")


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (ValueError("x"), 1, (OutcomeKind.RETRY, "error", 4)),
        (ValueError("x"), 2, (OutcomeKind.RETRY, "error", 8)),
        (ValueError("x"), 3, (OutcomeKind.FAILED, "error", 0)),
        (SystemExit(1), 1, (OutcomeKind.RETRY, "error", 4)),
        (RetryLater(7.5), 1, (OutcomeKind.RETRY, "retry_later", 7.5)),
        (RetryLater(7.5), 3, (OutcomeKind.FAILED, "retry_later", 0)),
        (PermanentFailure("no"), 1, (OutcomeKind.FAILED, "permanent", 0)),
        (InvalidPayload("no"), 1, (OutcomeKind.FAILED, "invalid_payload", 0)),
        (InvalidResult("no"), 1, (OutcomeKind.FAILED, "invalid_result", 0)),
        (group(ValueError("x"), group(RetryLater(3), RetryLater(9))), 1, (OutcomeKind.RETRY, "retry_later", 9)),
        (group(RetryLater(9), group(PermanentFailure("no"))), 1, (OutcomeKind.FAILED, "permanent", 0)),
        (group(ValueError("x"), SystemExit(1)), 1, (OutcomeKind.RETRY, "error", 4)),
        (WithoutDelay(), 1, (OutcomeKind.RETRY, "error", 4)),
    ],
)
def test_exception_decides_what_follows(
    error: BaseException, attempt: int, expected: tuple[OutcomeKind, str, float]
) -> None:
    assert summary(outcomes.raised(claim(attempt=attempt), error)) == expected


def test_replayed_task_starts_with_the_first_delay_again() -> None:
    replayed = claim(attempt=6, max_attempts=8, failures=0)
    assert outcomes.raised(replayed, ValueError()).delay_seconds == 4


@pytest.mark.parametrize(
    ("cause", "attempt", "expected"),
    [
        (StopCause.TIMEOUT, 1, (OutcomeKind.RETRY, "timeout", 4)),
        (StopCause.TIMEOUT, 3, (OutcomeKind.FAILED, "timeout", 0)),
        (StopCause.CANCELLED, 3, (OutcomeKind.CANCELLED, "", 0)),
        (StopCause.INTERRUPTED, 3, (OutcomeKind.INTERRUPTED, "", 0)),
    ],
)
def test_cause_of_a_stop_decides_what_follows(
    cause: StopCause, attempt: int, expected: tuple[OutcomeKind, str, float]
) -> None:
    assert summary(outcomes.stopped(claim(attempt=attempt), cause)) == expected


def test_error_is_bounded_and_keeps_the_end_of_its_traceback() -> None:
    try:
        try:
            raise KeyError("y" * 50_000)
        except KeyError as first:
            raise ValueError("x" * 50_000) from first
    except ValueError as error:
        described = outcomes.describe(error, "error")
    assert len(described.message) == limits.MAX_ERROR_MESSAGE
    assert len(described.traceback) == limits.MAX_TRACEBACK
    assert described.message.endswith("…")
    assert described.traceback.startswith("…")


def test_names_of_exceptions_carry_their_module() -> None:
    assert outcomes.describe(ValueError(), "error").type == "ValueError"
    assert outcomes.describe(RetryLater(1), "error").type == "bobrai.domain.errors.RetryLater"
