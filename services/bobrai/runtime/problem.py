"""What a client is told of a request that was not served: a problem document (RFC 9457), and the request's id."""

import random
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = b"application/problem+json"
_KIND_PREFIX: Final = "urn:bobrai:problem:"


def new_request_id() -> str:
    """Return an id for a request that came without one: unlike others, not unguessable.

    Asking the kernel for randomness is a system call, and every request needs an id.
    """
    return f"{random.getrandbits(128):032x}"


def document(kind: str, status: int, title: str, detail: str, request_id: str, **more: Any) -> bytes:
    """Return the JSON of a problem, with further members if given."""
    content = {"type": _KIND_PREFIX + kind, "title": title, "status": status, "detail": detail}
    return msgspec.json.encode({**content, "request_id": request_id, **more})
