"""The Idempotency-Key header: what it may be, and the fingerprint of the request that came with it."""

import hashlib
import re
from typing import Final

from bobrai.api.problems import Problem
from bobrai.api.schemas import IDEMPOTENCY_KEY_PATTERN
from bobrai.domain.task import IdempotencyKey

_VALUE: Final = re.compile(IDEMPOTENCY_KEY_PATTERN)
_ESCAPED: Final = re.compile(r'\\(["\\])')


def key_of(
    header: bytes | None, kind: str, body: bytes, *, ttl_seconds: float, client_id: str
) -> IdempotencyKey | None:
    """Return the key of a request of some kind (single, batch), or None when it has none.

    The draft's quoted form and the bare form that most clients send name the same key. Raises a 400 problem for
    anything else.
    """
    if header is None:
        return None
    given = header.decode("latin-1")
    if not _VALUE.fullmatch(given):
        raise Problem("bad-header", "Idempotency-Key must have 1 to 255 printable ASCII characters, quoted or not")
    key = _ESCAPED.sub(r"\1", given[1:-1]) if given.startswith('"') else given
    fingerprint = hashlib.sha256(kind.encode("ascii") + b"\n" + body).digest()
    return IdempotencyKey(key=key, fingerprint=fingerprint, ttl_seconds=ttl_seconds, client_id=client_id)
