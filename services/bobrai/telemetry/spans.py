"""What a tracer promises, and what its spans do: the words between `traces.py`, which the rooms ask, and `tracing.py`.

In: nothing. Out: protocols, so that neither side imports the other's libraries.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from bobrai.domain.task import Claim, Outcome


class Span(Protocol):
    """What is under way. ``trace_id`` is empty when it is not sampled."""

    @property
    def trace_id(self) -> str:
        """The id under which a trace shows it, as 32 hexadecimal digits."""

    @property
    def context(self) -> str:
        """Where it stands in its trace: traceparent, and tracestate after a space."""

    def enter(self) -> None:
        """Make it the current span of this asyncio task, until the task ends."""


class ServerSpan(Span, Protocol):
    """A request that is being answered."""

    def end(self, status: int) -> None:
        """It was answered."""


class PublishSpan(Span, Protocol):
    """Messages on their way to the broker."""

    def end(self, *, confirmed: int, refused: int, error: str = "") -> None:
        """The broker has answered, or has not: then ``error`` is the name of what went wrong."""


class AttemptSpan(Span, Protocol):
    """A handler that runs."""

    def end(self, outcome: Outcome | None) -> None:
        """It has ended; None: its claim was lost."""


class Origin(Protocol):
    """Where tasks that are published come from."""

    @property
    def trace_context(self) -> str:
        """As `Span.context`."""

    @property
    def age_seconds(self) -> float:
        """How long ago they were submitted."""


class Tracer(Protocol):
    """What makes spans."""

    def serve(self, method: str, route: str, scope: Mapping[str, Any], given: str) -> ServerSpan:
        """Begin a request; ``given`` is the client's trace context."""

    def publish(
        self, queue: str, origins: Sequence[Origin], hints: int, messages: int, parent_age_seconds: float
    ) -> PublishSpan:
        """Begin to publish; tasks that were submitted together, and lately, are the span's parent, others its links."""

    def attempt(self, claim: Claim, link_after_seconds: float) -> AttemptSpan:
        """Begin an attempt."""

    def within(self, context: str) -> AttemptSpan:
        """Return an attempt that another process began, and ends."""

    def descriptors(self) -> Iterable[int]:
        """Return the descriptors of its open connections."""

    def stop(self) -> None:
        """Send what is left, within 1.5 seconds."""
