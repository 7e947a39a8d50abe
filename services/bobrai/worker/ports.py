"""What the executor needs of whoever takes what handlers report and return.

In a worker these are ``ProgressReports`` and ``Completions``, in the process of an isolated task the way to its worker.
"""

from typing import Protocol

from bobrai.domain.task import Outcome
from bobrai.worker.attempt import Claimed


class Results(Protocol):
    """Who takes what comes out; see `completions.Completions`."""

    def write(self, attempt: Claimed, outcome: Outcome) -> None:
        """Write an outcome soon."""

    def written(self, attempt: Claimed, outcome: Outcome, status: str) -> None:
        """Note that an outcome is committed."""

    def lost(self, attempt: Claimed) -> None:
        """Note that the claim was no longer held."""

    async def is_settled(self, worker_id: int, outcome: Outcome) -> bool:
        """Return whether an outcome whose commit was not answered is there."""


class Reports(Protocol):
    """Who takes what handlers report; see `progress.ProgressReports`."""

    def report(self, task_id: int, attempt: int, text: str) -> None:
        """Show it soon; may be called from any thread."""

    def take(self, task_id: int, attempt: int) -> str | None:
        """Return the attempt's last report, unless it is shown already."""
