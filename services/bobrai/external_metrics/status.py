"""Errors as Kubernetes writes them: a ``metav1.Status`` whose code, reason and message every client understands.

In: what went wrong. Out: a Refused that ``app`` turns into the answer. No answer carries Retry-After: Kubernetes' own
client would then repeat a 503 ten times on the spot, and hold up one of the few workers of the autoscaler; it asks
again by itself every 15 seconds.
"""

from collections.abc import Mapping
from typing import Any, Final

REASONS: Final[Mapping[int, str]] = {
    400: "BadRequest",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Refused(Exception):
    """A request that is answered with an error; ``code`` is one of REASONS."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def body(code: int, message: str) -> dict[str, Any]:
    """Return the Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": REASONS[code],
        "code": code,
    }
