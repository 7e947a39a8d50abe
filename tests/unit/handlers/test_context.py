"""What a handler's context tells and passes on."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from bobrai import Context, Retry
from bobrai.domain import limits
from bobrai.domain.task import Claim
from bobrai.telemetry.logs import captured as capture_logs


class Recorded:
    """Services that remember."""

    def __init__(self) -> None:
        self.progress: list[tuple[int, int, str]] = []

    def report_progress(self, task_id: int, attempt: int, text: str) -> None:
        self.progress.append((task_id, attempt, text))

    def open_transaction(self, task_id: int, attempt: int) -> AbstractAsyncContextManager[Any]:
        raise AssertionError("not asked for")


def context(services: Recorded, timeout_seconds: float = 30.0) -> Context:
    return Context(
        Claim(7, 2, "mail", "media", 0, "null", 3, 1, Retry(), timeout_seconds, "r-1", "", 0.0, 0.0), services
    )


def test_logger_carries_the_attempt() -> None:
    with capture_logs() as logs:
        context(Recorded()).logger.info("mail.sent", to="somebody")
    assert {"event": "mail.sent", "to": "somebody", "request_id": "r-1", "task_id": 7, "attempt": 2, "type": "mail",
            "queue": "media"}.items() <= logs[0].items()  # fmt: skip


def test_remaining_time_ends_at_zero_and_the_deadline_stays() -> None:
    ctx = context(Recorded(), timeout_seconds=1e-9)
    assert ctx.remaining_seconds == 0
    assert ctx.deadline == ctx.deadline


def test_stop_is_seen_as_cancelled() -> None:
    ctx = context(Recorded())
    assert not ctx.cancelled
    ctx.stop()
    assert ctx.cancelled


def test_progress_is_passed_on_as_json() -> None:
    services = Recorded()
    context(services).progress({"done": 3, "of": float("nan")})
    task_id, attempt, text = services.progress[0]
    assert (task_id, attempt, json.loads(text)) == (7, 2, {"done": 3, "of": None})


@pytest.mark.parametrize("value", [object(), "x" * limits.MAX_PROGRESS_BYTES, {"deep": object()}])
def test_progress_that_cannot_be_shown_is_refused(value: object) -> None:
    services = Recorded()
    with pytest.raises(ValueError, match="progress"):
        context(services).progress(value)
    assert services.progress == []
