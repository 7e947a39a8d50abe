"""What a client is told when a request cannot be served: problem details (RFC 9457), from one table.

In: an error of this room or of ``domain.errors``. Out: status, headers and the JSON of the problem. Details never carry
what the server keeps to itself: statements, addresses, tracebacks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bobrai.domain import limits
from bobrai.domain.access import Scope, Standing
from bobrai.domain.errors import (
    CredentialRefused,
    DatabaseUnavailable,
    FiguresUnknown,
    IdempotencyMismatch,
    IssuerUnavailable,
    KeyNameTaken,
    QueueFull,
    RateLimited,
    RotationTooSoon,
    SchemaMissing,
    TaskNotFound,
    TooManyKeys,
    TooManyWaiting,
    TransitionRefused,
    Unavailable,
)
from bobrai.runtime import problem

MAX_FAULTS: Final = 100  # in one answer
MAX_DETAIL: Final = 500  # characters of one fault; a schema's message may quote a payload of any size
_RETRY_SECONDS: Final = 2  # for a dependency that is away
_RETRY_CROWDED_SECONDS: Final = 1  # for room, which a batch leaves within a second

# Words for faults that more than one checker finds.
REQUIRED: Final = "is required"
UNKNOWN_FIELD: Final = "is not a known field"
NO_OBJECT: Final = "must be an object"
NO_ARRAY: Final = "must be an array"

_AGAIN: Final = "try again, with the same Idempotency-Key if the request submits tasks"

Header = tuple[bytes, bytes]

# kind -> (status, title, what it means and what to do), for the answers and for the documentation.
KINDS: Final[Mapping[str, tuple[int, str, str]]] = {
    "bad-json": (400, "Bad JSON", "The body is not JSON in UTF-8."),
    "bad-header": (400, "Bad header", "A request header has a value that its definition forbids."),
    "unauthorized": (
        401,
        "Unauthorized",
        "It needs an API key or a token (`Authorization: Bearer …`), or its own is not valid, as `reason` says.",
    ),
    "forbidden": (403, "Forbidden", "The credential lacks the scope that `scope` names."),
    "outside-grant": (403, "Outside of the grant", "The credential is narrowed, and does not reach what was named."),
    "cross-origin": (
        403,
        "Cross-origin request",
        "Without a credential, a page of another origin may change nothing, unless the settings name its origin.",
    ),
    "foreign-host": (
        403,
        "Foreign host",
        "Without a credential the service is served under certain names only, and the Host header has another.",
    ),
    "client-certificate-required": (
        403,
        "Client certificate required",
        "The service takes requests only from clients that show a certificate in the handshake of TLS.",
    ),
    "not-found": (404, "Not found", "Nothing is served at this path."),
    "task-not-found": (404, "Task not found", "No task has this id, or it was removed after its retention time."),
    "queue-not-found": (404, "Queue not found", "No queue has this name."),
    "key-not-found": (404, "Key not found", "No API key that can be used has this id."),
    "type-not-found": (404, "Type not found", "No worker has announced this type, or not for very long."),
    "method-not-allowed": (405, "Method not allowed", "The Allow header lists what this path answers."),
    "body-timeout": (408, "Request timeout", "The body did not arrive in time."),
    "wrong-status": (409, "Conflict", "The task's status does not allow the change."),
    "queue-in-use": (409, "Queue in use", "The queue cannot be removed yet; the detail says why, and what to do."),
    "key-refused": (
        409,
        "Key refused",
        "The name is taken, the end is not ahead, there are as many keys as may be, or a grace lasts.",
    ),
    "body-too-large": (413, "Body too large", "The body has more bytes than this path accepts."),
    "wrong-media-type": (415, "Unsupported media type", "The body must be application/json in UTF-8."),
    "invalid": (422, "Invalid request", "`errors` names every place that is wrong as a JSON Pointer."),
    "idempotency-mismatch": (422, "Idempotency key reused", "This Idempotency-Key came before with another body."),
    "rate-limited": (429, "Too many requests", "More requests than may be; retry after the Retry-After time."),
    "too-many-waiting": (
        429,
        "Too many waiting tasks",
        "As many tasks of this credential wait as may; retry after the Retry-After time.",
    ),
    "too-many-at-once": (
        429,
        "Too many requests at once",
        "As many requests of this credential are under way in this process as may; retry after the Retry-After time.",
    ),
    "queue-full": (429, "Queue full", "The queue's backlog is at its maximum; retry after the Retry-After time."),
    "internal": (500, "Internal error", "A defect of the server; the log has the request id."),
    "crowded": (
        503,
        "Crowded",
        "No room for the body, or no time to read it; nothing was stored, retry after the Retry-After time.",
    ),
    "overloaded": (
        503,
        "Overloaded",
        "As many requests are under way in this process as it takes at once; retry after the Retry-After time.",
    ),
    "unknown": (503, "Unknown", "No dispatcher has measured a queue lately, so its backlog is not known."),
    "unavailable": (
        503,
        "Unavailable",
        "The database is away, too slow, or not ready; retry after the Retry-After time.",
    ),
}


class Fault(NamedTuple):
    """One place that is wrong: a JSON Pointer into the body, or ``/query/name``, or ``/path/name`` of a parameter."""

    pointer: str
    detail: str


class Problem(Exception):
    """A request that cannot be served; becomes an application/problem+json answer."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: tuple[Header, ...] = (),
        scope: Scope | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title, _ = KINDS[kind]
        self.detail = detail
        self.faults = faults
        self.headers = headers
        self.scope = scope
        self.reason = reason

    def body(self, request_id: str) -> bytes:
        """Return the JSON of the problem."""
        more: dict[str, Any] = {} if self.scope is None else {"scope": self.scope}
        if self.reason:
            more["reason"] = self.reason
        if self.faults:
            more["errors"] = [fault._asdict() for fault in self.faults[:MAX_FAULTS]]
        return problem.document(self.kind, self.status, self.title, self.detail, request_id, **more)


def pointer(*steps: str | int) -> str:
    """Return a JSON Pointer (RFC 6901) made of keys and indexes."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def invalid(faults: Sequence[Fault]) -> Problem:
    """A request that parses but breaks the rules; there is at least one fault."""
    first = faults[0]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Problem("invalid", f"{first.pointer or 'the body'}: {first.detail}{more}", faults=faults)


def no_credential(scope: Scope) -> Problem:
    """A request without a credential, where one is wanted."""
    detail = f"Show an API key or a token that has the scope {scope}: Authorization: Bearer …"
    return Problem(
        "unauthorized",
        detail,
        headers=((b"www-authenticate", b'Bearer realm="bobrai"'),),
        scope=scope,
        reason="missing",
    )


def bad_credential(error: CredentialRefused) -> Problem:
    """A credential that proves nothing, or no longer."""
    challenge = f'Bearer realm="bobrai", error="invalid_token", error_description="{error}"'.encode(
        "latin-1", "replace"
    )
    headers = ((b"www-authenticate", challenge),)
    return Problem("unauthorized", str(error), headers=headers, reason=error.reason)


def lacks_scope(scope: Scope) -> Problem:
    """A credential that may do other things."""
    challenge = f'Bearer realm="bobrai", error="insufficient_scope", scope="{scope}"'.encode("ascii")
    detail = f"The credential lacks the scope {scope}"
    return Problem("forbidden", detail, headers=((b"www-authenticate", challenge),), scope=scope)


def outside_grant(faults: Sequence[Fault]) -> Problem:
    """A credential that is narrowed, and reaches nothing of this name, be there something or not."""
    first = faults[0]
    return Problem("outside-grant", f"{first.pointer or 'the request'}: {first.detail}", faults=faults)


def cross_origin() -> Problem:
    """A change that a page of another origin has a browser make, without a credential."""
    return Problem(
        "cross-origin",
        "A page of another origin may change nothing here without a credential: show an API key, or have the server's "
        "BOBRAI_API_CORS_ORIGINS name the page's origin",
    )


def foreign_host(host: str) -> Problem:
    """A request without a credential, to a name under which none such is served."""
    return Problem(
        "foreign-host",
        f"Without a credential nothing is served as {shorten(host)!r}: show an API key, use another name, such as "
        "localhost, or have the server's BOBRAI_AUTH_ANONYMOUS_HOSTS name this one",
    )


def repeated_header(name: str) -> Problem:
    """A header that may come once only, and came again."""
    return Problem("bad-header", f"The header {name} came more than once")


def grant_changed() -> Problem:
    """A request during which the credential's grant became another."""
    detail = "What the credential may do has changed while the request was under way; try again"
    return Problem("unavailable", detail, headers=(_retry_after(_RETRY_SECONDS),))


def bad_json(detail: str) -> Problem:
    """A body that is not JSON."""
    return Problem("bad-json", detail)


def body_too_large(limit: int, *, close: bool = False) -> Problem:
    """A body over its limit; ``close`` also ends the connection, because the rest of the body is not read."""
    headers = ((b"connection", b"close"),) if close else ()
    return Problem("body-too-large", f"The body may have at most {limit} bytes", headers=headers)


def crowded() -> Problem:
    """A body for which there is no room now; nothing of it was stored, and the rest of it is not read."""
    return Problem(
        "crowded",
        "Too many bytes of request bodies are under way in this process; nothing was stored, try again",
        headers=(_retry_after(_RETRY_CROWDED_SECONDS), (b"connection", b"close")),
    )


def too_many_at_once(requests: int) -> Problem:
    """A request of a principal that has as many under way as it may; nothing of it was looked at."""
    detail = f"{requests} requests of this credential are under way in this process, as many as may be; try again"
    return Problem("too-many-at-once", detail, headers=(_retry_after(_RETRY_CROWDED_SECONDS),))


def overloaded(requests: int) -> Problem:
    """A request that came while the process had as many as it takes; nothing of it was looked at."""
    detail = f"{requests} requests are under way in this process, as many as it takes at once; try again"
    return Problem("overloaded", detail, headers=(_retry_after(_RETRY_CROWDED_SECONDS),))


def busy(seconds: float) -> Problem:
    """A body that was not looked at entirely before its time was over; nothing of it was stored."""
    return Problem(
        "crowded",
        f"The process is too busy to read this body within {seconds:g} s; nothing was stored, try again",
        headers=(_retry_after(_RETRY_SECONDS),),
    )


def body_timeout(seconds: float) -> Problem:
    """A body that takes too long to arrive; the rest of it is not read."""
    detail = f"The body did not arrive within {seconds:g} s"
    return Problem("body-timeout", detail, headers=((b"connection", b"close"),))


def one_too_many(queue: str) -> str:
    """Why there can be no queue of this name, and what to do."""
    return (
        f"{queue!r} would be one queue more than {limits.MAX_QUEUES}: remove one that is not needed, "
        "with DELETE /api/v1/queues/{name}"
    )


def unstorable() -> Problem:
    """Values that PostgreSQL refuses although they keep every documented rule."""
    return invalid([Fault("", "the database cannot store these values")])


def unsupported_media_type(detail: str) -> Problem:
    """A body of another type."""
    return Problem("wrong-media-type", detail)


def method_not_allowed(method: str, allowed: str) -> Problem:
    """A path that does not answer this method."""
    return Problem(
        "method-not-allowed", f"{method} is not one of {allowed}", headers=((b"allow", allowed.encode("ascii")),)
    )


def unavailable(error: Unavailable) -> Problem:
    """A dependency did not answer in time, or cannot do now what was asked; the request may be made again."""
    match error:
        case SchemaMissing():
            detail = "The database lacks this release's schema: run `bobrai migrate`, then try again"
        case IssuerUnavailable(retry_seconds=seconds):
            detail = "The keys of the token's issuer cannot be read now; try again"
            return Problem("unavailable", detail, headers=(_retry_after(seconds),))
        case DatabaseUnavailable(sqlstate=sqlstate) if sqlstate:
            detail = f"The database cannot do this now (SQLSTATE {sqlstate}); {_AGAIN}"
        case _:
            detail = f"The database does not answer; {_AGAIN}"
    return Problem("unavailable", detail, headers=(_retry_after(_RETRY_SECONDS),))


def of(error: Exception) -> Problem | None:
    """Return the problem that an error is, or None when it is a defect.

    StoreRejected is one, wherever a client did not send what was to be stored.
    """
    match error:
        case Problem():
            return error
        case CredentialRefused():
            return bad_credential(error)
        case KeyNameTaken() | RotationTooSoon() | TooManyKeys():
            return Problem("key-refused", str(error))
        case TaskNotFound():
            return Problem("task-not-found", "Task not found")
        case TransitionRefused():
            return Problem("wrong-status", str(error))
        case IdempotencyMismatch():
            return Problem("idempotency-mismatch", str(error))
        case QueueFull():
            return Problem("queue-full", str(error), headers=(_retry_after(error.retry_after_seconds),))
        case TooManyWaiting():
            return Problem("too-many-waiting", str(error), headers=(_retry_after(error.retry_after_seconds),))
        case RateLimited(standing=standing):
            headers = (_retry_after(standing.retry_seconds), *rate_headers(standing))
            return Problem("rate-limited", str(error), headers=headers)
        case FiguresUnknown():
            return Problem("unknown", str(error))
        case Unavailable():
            return unavailable(error)
        case _:
            return None


def rate_headers(standing: Standing) -> tuple[Header, Header]:
    """Return the fields of the IETF's draft on RateLimit headers (draft-ietf-httpapi-ratelimit-headers-10)."""
    name = standing.policy.encode("ascii")
    return (
        (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (name, standing.quota, standing.window_seconds)),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name, standing.left, standing.reset_seconds)),
    )


def _retry_after(seconds: int) -> Header:
    return b"retry-after", b"%d" % seconds


def shorten(text: str) -> str:
    """Return a detail of bounded length."""
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + "…"
