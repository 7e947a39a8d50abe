"""The table of transitions, which the statements and the schema implement."""

import pytest

from bobrai.domain.errors import RetryLater
from bobrai.domain.task import FINAL, TRANSITIONS, OutcomeKind, TaskStatus


def test_every_status_has_a_way_out_and_a_way_in() -> None:
    assert set(TRANSITIONS) == set(TaskStatus)
    assert set().union(*TRANSITIONS.values()) == set(TaskStatus)


def test_a_final_task_leaves_only_by_a_replay() -> None:
    assert {status: TRANSITIONS[status] for status in FINAL} == dict.fromkeys(FINAL, frozenset({TaskStatus.PENDING}))


def test_only_an_attempt_can_end_done_or_failed() -> None:
    for end in (TaskStatus.DONE, TaskStatus.FAILED):
        assert {status for status, to in TRANSITIONS.items() if end in to} == {TaskStatus.PROCESSING}


def test_every_outcome_leads_to_a_status_that_processing_may_reach() -> None:
    leads = dict.fromkeys((OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED), "pending")
    assert {leads.get(kind, kind.value) for kind in OutcomeKind} == TRANSITIONS[TaskStatus.PROCESSING]


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 367 * 86_400.0])
def test_a_retry_later_needs_a_delay_that_can_be_kept(delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        RetryLater(delay)
