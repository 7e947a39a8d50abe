"""The document that tells a client why its request was not served: problem details (RFC 9457)."""

from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = b"application/problem+json"
_KIND_PREFIX: Final = "urn:bobrai:problem:"


def document(kind: str, status: int, title: str, detail: str, request_id: str, **more: Any) -> bytes:
    """Return the JSON of a problem, with further members if given."""
    content = {"type": _KIND_PREFIX + kind, "title": title, "status": status, "detail": detail}
    return msgspec.json.encode({**content, "request_id": request_id, **more})
