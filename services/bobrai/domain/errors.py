"""Every error that one room raises and another catches.

BobraiError
├── ConfigurationError        a setting is wrong: tell the operator which, exit
├── SubmissionRefused         the client must change the request
│   ├── IdempotencyMismatch   the key was used with another request body
│   ├── QueueFull             the queue's backlog is at its maximum: try again later
│   └── TooManyWaiting        as many tasks of this principal wait as may: try again later
├── CredentialRefused         what a client has shown proves nothing, or no longer
├── RateLimited               too many requests of one principal or address: try again later
├── KeyNameTaken              another API key in use has this name
├── RotationTooSoon           the grace of an API key's last rotation is not over
├── TooManyKeys               there are as many API keys as there may be
├── TaskNotFound              no row has this id
├── TransitionRefused         the task's status does not allow what was asked
├── Unavailable               a dependency is away: try again, the outcome may be unknown
│   ├── DatabaseUnavailable
│   │   └── SchemaMissing     the tables are not there, or are older than this code: `bobrai migrate`
│   ├── BrokerUnavailable
│   ├── ClusterUnavailable    the Kubernetes API
│   ├── IssuerUnavailable     the keys of a token's issuer cannot be read
│   └── FiguresUnknown        nobody has measured the queue lately: say so, never zero
├── StoreRejected             the values of one statement cannot be stored: retrying will not help
├── MalformedMessage          a message body is not ours: dead-letter it
├── ClaimLost                 another attempt owns the task now: drop the outcome
├── WorkerGone                the worker's row is gone: stop its handlers, start over under a new id
├── RetryLater                a handler asks for another attempt after a delay of its choosing
└── PermanentFailure          a handler says that no further attempt can succeed
"""

from typing import Any

from bobrai.domain.access import Standing


def type_name(error: BaseException) -> str:
    """Return how an exception's type is called in rows and logs: with its module, unless that is Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class BobraiError(Exception):
    """The root of all errors that bobrAI raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how a copy is made, as in another process: Python would call ``__init__`` with the message alone."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[BobraiError], args: tuple[Any, ...]) -> BobraiError:
    return kind.__new__(kind, *args)


class ConfigurationError(BobraiError):
    """A setting or an argument is wrong; the message says which and what to change."""


class SubmissionRefused(BobraiError):
    """The submission cannot be accepted as it is; nothing was stored."""


class IdempotencyMismatch(SubmissionRefused):
    """The idempotency key was used before with a different request body."""


class QueueFull(SubmissionRefused):
    """The queue's backlog is at its maximum; ``retry_after_seconds`` says when to ask again."""

    def __init__(self, queue: str, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"queue {queue!r} has reached its maximum backlog of {limit} tasks")
        self.queue = queue
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class TooManyWaiting(SubmissionRefused):
    """As many tasks of one principal wait as may; ``retry_after_seconds`` says when to ask again."""

    def __init__(self, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"{limit} tasks of this credential wait, or would with these, which is its maximum")
        self.retry_after_seconds = retry_after_seconds


class CredentialRefused(BobraiError):
    """A credential that proves nothing; ``reason`` is one of a few words, for metrics: unknown, expired, revoked, …

    ``credential``: which one it says to be, such as ``key:k7x2m9q4w1ab``, for the log; empty: it does not say so.
    """

    def __init__(self, reason: str, message: str, *, credential: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.credential = credential


class KeyNameTaken(BobraiError):
    """An API key that can be used has this name already."""


class RotationTooSoon(BobraiError):
    """The secret before an API key's last rotation still works."""


class TooManyKeys(BobraiError):
    """There are as many API keys that can be used as there may be."""


class RateLimited(BobraiError):
    """A principal or an address asks more often than it may; ``standing`` says when to ask again."""

    def __init__(self, message: str, standing: Standing) -> None:
        super().__init__(message)
        self.standing = standing


class TaskNotFound(BobraiError):
    """No task has this id, or it was removed after its retention time."""

    def __init__(self, task_id: int) -> None:
        super().__init__(f"task {task_id} not found")
        self.task_id = task_id


class TransitionRefused(BobraiError):
    """The task's status does not allow the change; ``status`` is what it is now."""

    def __init__(self, task_id: int, status: str, wish: str) -> None:
        super().__init__(f"task {task_id} is {status} and cannot be {wish}")
        self.task_id = task_id
        self.status = status


class Unavailable(BobraiError):
    """A dependency is away or too slow; whether the last request took effect is unknown."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL or its pooler did not answer in time, or refused for a reason that the values did not cause.

    ``sqlstate`` is the answer, empty when there was none; then, and in class 08, the statement may have taken effect
    unless ``without_effect`` says that it certainly has not, because it never reached a server that works.
    ``perhaps_one_row``: each row of the statement may fare better alone.
    """

    def __init__(
        self, message: str, sqlstate: str = "", *, perhaps_one_row: bool = False, without_effect: bool = False
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.perhaps_one_row = perhaps_one_row
        self.without_effect = without_effect


class SchemaMissing(DatabaseUnavailable):
    """A table, column or function is not there: nobody has migrated the database to this release."""


class BrokerUnavailable(Unavailable):
    """RabbitMQ did not answer in time, or the connection was lost."""


class ClusterUnavailable(Unavailable):
    """The Kubernetes API did not answer in time, refused, or answered what cannot be used."""


class IssuerUnavailable(Unavailable):
    """The keys that would tell whether a token is right cannot be had from its issuer now.

    ``retry_seconds``: when it may be asked again. ``held_up``: somebody waited for it in vain, or was turned away
    because too many do.
    """

    def __init__(self, message: str, *, retry_seconds: int = 1, held_up: bool = False) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.held_up = held_up


class FiguresUnknown(Unavailable):
    """A queue's figures are too old to act on, because no dispatcher measures it now."""


class StoreRejected(BobraiError):
    """PostgreSQL or its driver refused the values of a statement; the same values will be refused again."""


class MalformedMessage(BobraiError):
    """A message body cannot be decoded as hints."""


class ClaimLost(BobraiError):
    """The claim that this write depended on is no longer held."""


def is_of_one_row(error: StoreRejected | DatabaseUnavailable) -> bool:
    """Return whether each row of a statement that failed so may fare better alone, by what PostgreSQL has said."""
    return isinstance(error, StoreRejected) or (error.perhaps_one_row and bool(error.sqlstate))


class WorkerGone(BobraiError):
    """The worker's row expired and was removed; its claims were given to others."""


class RetryLater(BobraiError):
    """Raised by a handler: it is too early, run the next attempt after ``delay`` seconds.

    It costs no attempt, 1,000 times; after that each counts as a failed one.
    """

    def __init__(self, delay: float, reason: str = "") -> None:
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= 366 * 86_400:
            raise ValueError(f"delay must be a number of seconds, from 0 to 366 days, not {delay!r}")
        super().__init__(reason or f"the handler asked for a retry in {delay:g} s")
        self.delay = delay


class PermanentFailure(BobraiError):
    """Raised by a handler: fail the task now, whatever attempts are left."""
