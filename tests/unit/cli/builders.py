"""Answers of the API for these tests."""

from datetime import UTC, datetime
from typing import Any

from bobrai.client.models import Task

AT = datetime(2030, 1, 31, 12, tzinfo=UTC)


def task(**said: Any) -> Task:
    """A task that waits, but for what is said."""
    waiting = {"id": 17, "type": "echo", "queue": "mail", "status": "pending", "run_at": AT, "created_at": AT}
    return Task(**{**waiting, "updated_at": AT, **said})
