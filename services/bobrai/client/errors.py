"""Everything that the client raises of itself.

ClientError
├── ConnectionFailed           no answer came, or none that could be read to its end: the outcome may be unknown
├── BadAnswer                  an answer that is not the API's, such as a proxy's page
├── ResultHidden               the task is done, and the credential may not see its result
├── BadResult                  a result that is not what the handler's function says it returns
├── TaskFailed                 the task that was waited for has failed; ``errors`` says of what, attempt by attempt
├── TaskCancelled              the task that was waited for was cancelled, or has expired
├── WaitTimeout                the task that was waited for has not ended in time; it goes on
└── ApiError                   the API has refused the request; ``kind`` is the problem's, one class for each:
    ├── BadRequest             the request has to be another one
    │   ├── BadJson, BadHeader, BodyTooLarge, WrongMediaType, MethodNotAllowed, BodyTimeout
    │   ├── HeadTooLarge, HeadTimeout, NotHttp
    │   ├── Invalid            ``errors`` names every place that is wrong
    │   └── IdempotencyMismatch  the key was used with another request
    ├── Refused                another credential is needed, or another way to the API
    │   ├── Unauthorized, Forbidden, OutsideGrant, ClientCertificateRequired, CrossOrigin, ForeignHost
    ├── NotFound               there is nothing of this name or id
    │   ├── PathNotFound, TaskNotFound, QueueNotFound, TypeNotFound, KeyNotFound
    ├── Conflict               what is there does not allow it
    │   ├── WrongStatus, QueueInUse, KeyRefused
    ├── TooMany                later; ``retry_after`` says when
    │   ├── RateLimited, TooManyWaiting, TooManyAtOnce, QueueFull
    ├── Unavailable            later; the API or its database cannot do it now
    │   ├── Crowded, Overloaded, TooManyHeads, FiguresUnknown, DatabaseUnavailable
    └── ServerError            a defect of the server, whose log has the ``request_id``
        └── Internal

A kind that a newer server has made is the class of its status: BadRequest for 400, and so on.
"""

from collections.abc import Sequence
from typing import ClassVar

from bobrai.client.models import AttemptFailure, Fault, Problem, Task
from bobrai.domain.errors import BobraiError


class ClientError(BobraiError):
    """The root of all errors of the client.

    ``idempotency_key``: the one of a submit that failed; calling again with it stores what was not stored, and nothing
    twice. Empty elsewhere.
    """

    idempotency_key: str = ""


class ConnectionFailed(ClientError):
    """No answer came within the time; ``unsent``: the request has certainly not reached the API.

    ``is_lasting``: another try would meet the same, as a certificate that proves nothing.
    """

    def __init__(self, message: str, *, unsent: bool = False, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent
        self.is_lasting = is_lasting


class BadAnswer(ClientError):
    """An answer that the API does not give; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ResultHidden(ClientError):
    """The task is done, and the credential lacks the scope tasks:payload, which results need."""


class BadResult(ClientError):
    """A result that is not of the type that the handler's function is annotated with."""


class TaskFailed(ClientError):
    """The task has failed; ``errors`` are its attempts', newest last, ``task`` is all that is known of it."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"task {task.id} ({task.type}) failed: {_last(task) or 'without an error'}")
        self.task = task

    @property
    def errors(self) -> Sequence[AttemptFailure]:
        """How its attempts failed, newest last."""
        return self.task.errors


class TaskCancelled(ClientError):
    """The task was cancelled, or has expired; ``task`` is all that is known of it."""

    def __init__(self, task: Task) -> None:
        why = f": {_last(task)}" if task.errors else ""
        super().__init__(f"task {task.id} ({task.type}) was cancelled{why}")
        self.task = task


class WaitTimeout(ClientError, TimeoutError):
    """The task has not ended in time; ``task`` is as it was then."""

    def __init__(self, task: Task, seconds: float) -> None:
        super().__init__(f"task {task.id} ({task.type}) is still {task.status} after {seconds:g} s")
        self.task = task


def _last(task: Task) -> str:
    if not task.errors:
        return ""
    error = task.errors[-1]
    return f"{error.type}: {error.message}" if error.message else f"{error.type} ({error.reason})"


class ApiError(ClientError):
    """The API's refusal: ``kind``, ``status``, ``title``, ``detail``, ``errors``, ``request_id``, ``retry_after``.

    ``retry_after`` is in seconds, None where the API says none; ``scope`` is the one that is missing, ``reason`` why a
    credential is refused; empty elsewhere.
    """

    KIND: ClassVar[str] = ""  # of the problem; empty: of several

    def __init__(self, problem: Problem, retry_after: float | None) -> None:
        said = [f"{fault.pointer or '(the body)'}: {fault.detail}" for fault in problem.errors]
        places = "".join(f"\n  {each}" for each in said if each != problem.detail)
        super().__init__(f"{problem.detail or problem.title} ({problem.status}, {problem.kind}){places}")
        self.kind = problem.kind
        self.status = problem.status
        self.title = problem.title
        self.detail = problem.detail
        self.errors: Sequence[Fault] = problem.errors
        self.request_id = problem.request_id
        self.scope = problem.scope
        self.reason = problem.reason
        self.retry_after = retry_after


class BadRequest(ApiError):
    """The request has to be another one."""


class Refused(ApiError):
    """Another credential is needed, or another way to the API."""


class NotFound(ApiError):
    """There is nothing of this name or id."""


class Conflict(ApiError):
    """What is there does not allow it."""


class TooMany(ApiError):
    """Later; ``retry_after`` says when."""


class Unavailable(ApiError):
    """Later; the API or its database cannot do it now."""


class ServerError(ApiError):
    """A defect of the server."""


class BadJson(BadRequest):
    """The body is not JSON, as when it holds NaN."""

    KIND = "bad-json"


class BadHeader(BadRequest):
    """A header has a value that its definition forbids, such as the idempotency key."""

    KIND = "bad-header"


class BodyTooLarge(BadRequest):
    """The body has more bytes than the API accepts."""

    KIND = "body-too-large"


class WrongMediaType(BadRequest):
    """The body is not said to be JSON."""

    KIND = "wrong-media-type"


class MethodNotAllowed(BadRequest):
    """The path does not answer this method."""

    KIND = "method-not-allowed"


class BodyTimeout(BadRequest):
    """The body did not arrive in time."""

    KIND = "body-timeout"


class HeadTooLarge(BadRequest):
    """The URL and the headers are too long."""

    KIND = "head-too-large"


class HeadTimeout(BadRequest):
    """The URL and the headers did not arrive in time."""

    KIND = "head-timeout"


class NotHttp(BadRequest):
    """What arrived was no request in HTTP, as when something between has changed it."""

    KIND = "bad-request"


class Invalid(BadRequest):
    """``errors`` names every place that is wrong."""

    KIND = "invalid"


class IdempotencyMismatch(BadRequest):
    """The idempotency key was used with another request."""

    KIND = "idempotency-mismatch"


class Unauthorized(Refused):
    """There is no credential, or it is not valid, as ``reason`` says."""

    KIND = "unauthorized"


class Forbidden(Refused):
    """The credential lacks the scope that ``scope`` names."""

    KIND = "forbidden"


class OutsideGrant(Refused):
    """The credential does not reach what was named."""

    KIND = "outside-grant"


class ClientCertificateRequired(Refused):
    """The API wants a client certificate: ``certificate=`` of the client."""

    KIND = "client-certificate-required"


class CrossOrigin(Refused):
    """Without a credential a page of another origin may change nothing."""

    KIND = "cross-origin"


class ForeignHost(Refused):
    """Without a credential the API is served under certain names only."""

    KIND = "foreign-host"


class PathNotFound(NotFound):
    """Nothing is served at this path: the URL is not the API's, or it is an older release."""

    KIND = "not-found"


class TaskNotFound(NotFound):
    """No task has this id, or it was removed after its retention time."""

    KIND = "task-not-found"


class QueueNotFound(NotFound):
    """No queue has this name."""

    KIND = "queue-not-found"


class TypeNotFound(NotFound):
    """No worker has announced this type."""

    KIND = "type-not-found"


class KeyNotFound(NotFound):
    """No API key that can be used has this id."""

    KIND = "key-not-found"


class WrongStatus(Conflict):
    """The task's status does not allow it."""

    KIND = "wrong-status"


class QueueInUse(Conflict):
    """The queue cannot be removed yet."""

    KIND = "queue-in-use"


class KeyRefused(Conflict):
    """The key cannot be made or rotated now."""

    KIND = "key-refused"


class RateLimited(TooMany):
    """More requests than the credential may make."""

    KIND = "rate-limited"


class TooManyWaiting(TooMany):
    """As many tasks of the credential wait as may."""

    KIND = "too-many-waiting"


class TooManyAtOnce(TooMany):
    """As many requests of the credential are under way as may."""

    KIND = "too-many-at-once"


class QueueFull(TooMany):
    """The queue's backlog is at its maximum."""

    KIND = "queue-full"


class Crowded(Unavailable):
    """No room for the body; nothing was stored."""

    KIND = "crowded"


class Overloaded(Unavailable):
    """As many requests are under way as the process takes; nothing was done."""

    KIND = "overloaded"


class TooManyHeads(Unavailable):
    """Too many requests with long headers are under way; nothing was done."""

    KIND = "too-many-heads"


class FiguresUnknown(Unavailable):
    """Nobody has measured the queue lately."""

    KIND = "unknown"


class DatabaseUnavailable(Unavailable):
    """The database is away or too slow; the outcome may be unknown."""

    KIND = "unavailable"


class Internal(ServerError):
    """A defect of the server, whose log has the ``request_id``."""

    KIND = "internal"
