"""What the state machine expects of the store: plain values, changed by its events."""

from dataclasses import dataclass, field

from bobrai.domain.message import Hint
from bobrai.domain.task import Claim


@dataclass
class Model:
    """What a task must look like."""

    max_attempts: int
    tries: int  # attempts in one set
    status: str = "pending"
    attempt: int = 0
    cancel: bool = False
    worker: int = 0
    ends: int = 0  # how often it became final
    replays: int = 0
    losses: int = 0
    started: bool = False  # in its set of attempts; one that was given back before its end is no start
    late: int = 0  # which of the moments that pass was its deadline
    expired: int = 0  # which one was its expiry

    def overdue(self) -> str | None:
        """The status in which it ends if it waits."""
        if self.expired and not self.started and not 0 < self.late < self.expired:
            return "cancelled"
        return "failed" if self.late else None

    def again(self) -> None:
        """Wait for the next attempt."""
        self.status, self.worker = "pending", 0

    def end(self, status: str) -> None:
        """Become final."""
        self.status = status
        self.ends += 1


@dataclass
class Expected:
    """Everything that the database and the broker must hold."""

    tasks: dict[int, Model] = field(default_factory=dict)
    outbox: dict[int, tuple[int, bool]] = field(default_factory=dict)  # task -> attempt, due
    messages: list[Hint] = field(default_factory=list)
    claims: list[tuple[int, Claim]] = field(default_factory=list)  # with their workers, also those that are over
    living: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
