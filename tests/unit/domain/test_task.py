"""The table of transitions, which the statements and the schema implement."""

import pytest
from msgspec import structs

from bobrai.domain.errors import RetryLater
from bobrai.domain.retry import Retry
from bobrai.domain.task import FINAL, TRANSITIONS, Claim, OutcomeKind, TaskStatus


def test_every_status_has_a_way_out_and_a_way_in() -> None:
    assert set(TRANSITIONS) == set(TaskStatus)
    assert set().union(*TRANSITIONS.values()) == set(TaskStatus)


def test_a_final_task_leaves_only_by_a_replay() -> None:
    assert {status: TRANSITIONS[status] for status in FINAL} == dict.fromkeys(FINAL, frozenset({TaskStatus.PENDING}))


def test_only_an_attempt_can_end_done() -> None:
    assert {status for status, to in TRANSITIONS.items() if TaskStatus.DONE in to} == {TaskStatus.PROCESSING}


def test_a_final_task_cannot_fail_again() -> None:
    fails = {status for status, to in TRANSITIONS.items() if TaskStatus.FAILED in to}
    assert fails == {TaskStatus.PROCESSING, TaskStatus.PENDING}


def test_a_deadline_ends_an_attempt_before_its_timeout() -> None:
    claim = Claim(1, 1, "t", "default", 0, "1", 3, 0, Retry(), 30.0, "", "", 0.0, 0.0)
    assert claim.after(5.0) is claim
    assert structs.replace(claim, deadline_seconds=40.0).after(9.0).timeout_seconds == 30.0
    late = structs.replace(claim, deadline_seconds=40.0).after(15.0).after(5.0)
    assert (late.timeout_seconds, late.deadline_seconds, late.ends_with_task) == (20.0, 20.0, True)
    assert late.after(100.0).timeout_seconds == 0.0


def test_every_outcome_leads_to_a_status_that_processing_may_reach() -> None:
    leads = dict.fromkeys((OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED), "pending")
    assert {leads.get(kind, kind.value) for kind in OutcomeKind} == TRANSITIONS[TaskStatus.PROCESSING]


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 367 * 86_400.0])
def test_a_retry_later_needs_a_delay_that_can_be_kept(delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        RetryLater(delay)
