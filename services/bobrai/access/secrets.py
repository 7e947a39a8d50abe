"""The secrets of API keys: how they look, how they are made, what is kept of them.

In: nothing, or the text that a client shows. Out: a new secret that is shown once, or an id and a hash to compare.
"""

import hashlib
import secrets
import string
from typing import Final, NamedTuple

PREFIX: Final = "bobrai_"
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_ID_LENGTH: Final = 12
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits
SECRET_LENGTH: Final = 43  # of 62 characters: 256 bits
_LONGEST: Final = 200


class Shown(NamedTuple):
    """What a client has shown: which key, and the hash and the mark of all of it."""

    key_id: str
    digest: bytes
    mark: bytes


def new_id() -> str:
    """Return an id that no other key has."""
    return _random(_ID_ALPHABET, _ID_LENGTH)


def new_secret(key_id: str) -> str:
    """Return ``bobrai_<id>_<secret>``; it is random enough that its hash needs neither salt nor effort."""
    return f"{PREFIX}{key_id}_{_random(_SECRET_ALPHABET, SECRET_LENGTH)}"


def digest(secret: str) -> bytes:
    """Return what is kept of a secret: SHA-256 of all its characters."""
    return hashlib.sha256(secret.encode()).digest()


def read(token: bytes) -> Shown | None:
    """Return what a bearer token says, or None when it has not the form of a key."""
    if len(token) > _LONGEST or not token.startswith(b"bobrai_"):
        return None
    key_id, _, secret = token[len(PREFIX) :].partition(b"_")
    if not secret or not key_id.isalnum():  # of bytes that means: in ASCII
        return None
    return Shown(key_id.decode("ascii"), hashlib.sha256(token).digest(), mark(token))


def mark(token: bytes) -> bytes:
    """Return what stands in memory for a credential that was found good, so that the next look takes less time.

    BLAKE2b is as strong as SHA-256, but needs nothing of OpenSSL, whose set-up for each call takes several times as
    long as the hashing.
    """
    return hashlib.blake2b(token, digest_size=32).digest()


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
