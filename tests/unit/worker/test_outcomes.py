"""The rules by which the end of an attempt becomes an outcome."""

from typing import Any

import pytest
from msgspec import structs

from bobrai import PermanentFailure, Retry, RetryLater
from bobrai.domain import limits
from bobrai.domain.errors import StoreRejected
from bobrai.domain.task import Claim, Outcome, OutcomeKind
from bobrai.handlers.batches import RetryItem
from bobrai.handlers.codec import InvalidPayload, InvalidResult
from bobrai.worker import outcomes
from bobrai.worker.attempt import StopCause


def claim(*, attempt: int = 1, max_attempts: int = 3, failures: int | None = None, snoozes: int = 0) -> Claim:
    policy = Retry(max_attempts=max_attempts, delay_seconds=4, factor=2, max_delay_seconds=100, jitter=0)
    before = attempt - 1 if failures is None else failures
    return Claim(
        1, attempt, "t", "default", 0, "null", max_attempts, before, policy, 30.0, "", "", 0.0, 0.0, snoozes=snoozes
    )


def summary(outcome: Outcome) -> tuple[OutcomeKind, str, float]:
    return outcome.kind, outcome.error.reason if outcome.error else "", outcome.delay_seconds


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


class WithoutDelay(RetryLater):
    def __init__(self, *delay: Any) -> None:
        Exception.__init__(self, "it knows no delay")
        if delay:
            (self.delay,) = delay


class Lazy(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self)

    @property
    def delay(self) -> float:
        raise SystemExit(3)


class Quiet(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise ValueError("no")

    isascii = __len__  # type: ignore[assignment]


class Quietly(Exception):
    def __str__(self) -> str:
        return Quiet("x")


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Liar(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit(3)


class Unnamed(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise KeyboardInterrupt
        return 7 if name == "__name__" else type.__getattribute__(cls, name)


class OfNoName(Exception, metaclass=Unnamed):
    pass


class Itself(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        return (self,)


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (ValueError("x"), 1, (OutcomeKind.RETRY, "error", 4)),
        (ValueError("x"), 2, (OutcomeKind.RETRY, "error", 8)),
        (ValueError("x"), 3, (OutcomeKind.FAILED, "error", 0)),
        (SystemExit(1), 1, (OutcomeKind.RETRY, "error", 4)),
        (RetryLater(7.5), 1, (OutcomeKind.SNOOZE, "retry_later", 7.5)),
        (RetryLater(7.5), 3, (OutcomeKind.SNOOZE, "retry_later", 7.5)),
        (PermanentFailure("no"), 1, (OutcomeKind.FAILED, "permanent", 0)),
        (InvalidPayload("no"), 1, (OutcomeKind.FAILED, "invalid_payload", 0)),
        (InvalidResult("no"), 1, (OutcomeKind.FAILED, "invalid_result", 0)),
        (group(ValueError("x"), group(RetryLater(3), RetryLater(9))), 1, (OutcomeKind.SNOOZE, "retry_later", 9)),
        (group(RetryLater(9), group(PermanentFailure("no"))), 1, (OutcomeKind.FAILED, "permanent", 0)),
        (group(ValueError("x"), SystemExit(1)), 1, (OutcomeKind.RETRY, "error", 4)),
        (WithoutDelay(), 1, (OutcomeKind.SNOOZE, "retry_later", 4)),
        (WithoutDelay(float("nan")), 1, (OutcomeKind.SNOOZE, "retry_later", 4)),
        (WithoutDelay(float("inf")), 1, (OutcomeKind.SNOOZE, "retry_later", 4)),
        (WithoutDelay(-5), 1, (OutcomeKind.SNOOZE, "retry_later", 4)),
        (WithoutDelay("5"), 1, (OutcomeKind.SNOOZE, "retry_later", 4)),
        (group(WithoutDelay(float("nan")), RetryLater(9)), 1, (OutcomeKind.SNOOZE, "retry_later", 9)),
    ],
)
def test_exception_decides_what_follows(
    error: BaseException, attempt: int, expected: tuple[OutcomeKind, str, float]
) -> None:
    assert summary(outcomes.raised(claim(attempt=attempt), error)) == expected


class Gone(LookupError):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), (OutcomeKind.FAILED, "non_retryable", 0)),
        (Gone("x"), (OutcomeKind.FAILED, "non_retryable", 0)),
        (KeyError("x"), (OutcomeKind.FAILED, "non_retryable", 0)),
        (TypeError("x"), (OutcomeKind.RETRY, "error", 4)),
        (SystemExit(1), (OutcomeKind.FAILED, "non_retryable", 0)),
        (group(TypeError("x"), group(Gone("x"))), (OutcomeKind.FAILED, "non_retryable", 0)),
        (group(RetryLater(9), Gone("x")), (OutcomeKind.FAILED, "non_retryable", 0)),
        (group(Gone("x"), PermanentFailure("no")), (OutcomeKind.FAILED, "permanent", 0)),
        (group(TypeError("x"), RetryLater(9)), (OutcomeKind.SNOOZE, "retry_later", 9)),
    ],
)
def test_what_the_declaration_calls_non_retryable_fails_at_once(
    error: BaseException, expected: tuple[OutcomeKind, str, float]
) -> None:
    outcome = outcomes.raised(claim(), error, (ValueError, LookupError, SystemExit))
    assert summary(outcome) == expected


def test_a_wish_to_come_again_is_granted_whatever_the_declaration_calls_non_retryable() -> None:
    assert summary(outcomes.raised(claim(), RetryLater(9), (Exception,))) == (OutcomeKind.SNOOZE, "retry_later", 9)
    assert summary(outcomes.raised(claim(), RetryItem("x"), (Exception,))) == (OutcomeKind.RETRY, "error", 4)


def test_class_that_an_exception_only_claims_to_have_decides_nothing() -> None:
    assert summary(outcomes.raised(claim(), Liar(), (ValueError,))) == (OutcomeKind.RETRY, "error", 4)


@pytest.mark.parametrize(
    ("snoozes", "attempt", "expected"),
    [
        (limits.MAX_SNOOZES - 1, 3, (OutcomeKind.SNOOZE, "retry_later", 9)),
        (limits.MAX_SNOOZES, 2, (OutcomeKind.RETRY, "retry_later", 9)),
        (limits.MAX_SNOOZES, 3, (OutcomeKind.FAILED, "retry_later", 0)),
    ],
)
def test_a_retry_later_counts_as_a_failure_after_too_many(
    snoozes: int, attempt: int, expected: tuple[OutcomeKind, str, float]
) -> None:
    assert summary(outcomes.raised(claim(attempt=attempt, snoozes=snoozes), RetryLater(9))) == expected


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


def test_refused_values_are_left_out_one_after_the_other() -> None:
    done = Outcome(7, 2, OutcomeKind.DONE, "1", progress="2")
    steps, refusal = [done], StoreRejected("too odd")
    while (plain := outcomes.plainer(steps[-1], refusal)) is not None:
        steps.append(plain)
    shown = [(step.kind, step.result, step.progress, step.error and step.error.message) for step in steps]
    assert shown == [
        (OutcomeKind.DONE, "1", "2", None),
        (OutcomeKind.DONE, "1", None, None),
        (OutcomeKind.FAILED, None, None, "too odd"),
        (OutcomeKind.FAILED, None, None, "the error could not be stored"),
        (OutcomeKind.FAILED, None, None, None),
    ]
    assert {step.error.reason for step in steps if step.error} == {"invalid_result"}


def test_deadline_of_the_task_leaves_no_attempt() -> None:
    late = structs.replace(claim(), deadline_seconds=3.0).after(0.0)
    assert summary(outcomes.stopped(late, StopCause.TIMEOUT)) == (OutcomeKind.FAILED, "deadline", 0)
    assert summary(outcomes.stopped(late, StopCause.INTERRUPTED)) == (OutcomeKind.INTERRUPTED, "", 0)
    assert summary(outcomes.raised(late, ValueError())) == (OutcomeKind.RETRY, "error", 4)


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


def test_retries_that_keep_what_failed_before_end_within_moments() -> None:
    errors: list[Exception] = [ValueError("x"), RetryLater(9)]
    for attempt in range(40):
        errors.append(ExceptionGroup(f"try {attempt}", list(errors)))
    try:
        raise errors[-1]
    except ExceptionGroup as error:
        outcome = outcomes.raised(claim(), error)
    assert summary(outcome) == (OutcomeKind.SNOOZE, "retry_later", 9)
    assert outcome.error is not None
    assert "in test_retries_that_keep" in outcome.error.traceback
    assert "ExceptionGroup: try 39" in outcome.error.traceback
    assert "more than 1,000 other" in outcome.error.traceback


def test_groups_in_groups_are_told_at_any_depth() -> None:
    deep: BaseException = PermanentFailure("no")
    for _ in range(800):
        deep = group(deep)
    outcome = outcomes.raised(claim(), deep)
    assert summary(outcome) == (OutcomeKind.FAILED, "permanent", 0)
    assert outcome.error is not None
    assert "ExceptionGroup: several" in outcome.error.traceback


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Lazy(), "retry_later"),
        (Quietly(), "error"),
        (Interrupting(), "error"),
        (Liar(), "error"),
        (group(Liar(), RetryLater(9)), "retry_later"),
        (OfNoName(), "error"),
        (Itself("g", [RetryLater(9)]), "retry_later"),
    ],
    ids=["delay exits", "text has no length", "interrupts", "class exits", "among others", "no name", "itself"],
)
def test_an_attempt_ends_whatever_its_exception_does_when_it_is_looked_at(error: BaseException, reason: str) -> None:
    outcome = outcomes.raised(claim(), error)
    assert summary(outcome)[:2] == (OutcomeKind.RETRY if reason == "error" else OutcomeKind.SNOOZE, reason)
    assert outcome.error is not None
    assert all(type(text) is str for text in (outcome.error.type, outcome.error.message, outcome.error.traceback))
