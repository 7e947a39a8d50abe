"""The keys that an issuer publishes, of which those are kept that may verify a token.

In: the bytes of a JSON Web Key Set. Out: keys by id and algorithm, or ValueError. No I/O. Next: ``issuer_keys.py``.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KEYS: Final = 100
MAX_KEY_ID: Final = 256  # characters
_RSA_BITS: Final = range(2048, 8192 + 1)  # below it is broken one day soon, above it verifying takes too long
_MAX_NUMBER: Final = 2_048  # characters of a key's number, of which the largest RSA key that is used has 1,366
# What a key of each kind is for; a kind that is missing here can never verify anything, as a symmetric one.
_ALGORITHM_OF: Final[dict[tuple[object, object], str]] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}


@dataclass(slots=True, eq=False)
class Key:
    """One key of an issuer. ``good_until``, by the monotonic clock, is when nothing that it signed counts any more."""

    id: str | None
    algorithm: str
    jwk: jwt.PyJWK
    material: tuple[object, ...]
    good_until: float = inf


Keys: TypeAlias = Mapping[tuple[str | None, str], Key]


def parsed(body: bytes, algorithms: Collection[str]) -> list[Key]:
    """Return the keys of a set that can be used, the first of those with the same id and algorithm.

    Raises ValueError when it is none. Keys for other things than signatures, or of other kinds, are left out.
    """
    try:
        # No number of a key is one of JSON's, and Python takes those of any length only as floats.
        document = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        raise ValueError("its keys are not JSON") from None
    items = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError("its keys are no JSON Web Key Set: there is no array called keys")  # noqa: TRY004 - of what came
    if len(items) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    found: dict[tuple[str | None, str], Key] = {}
    for key in _usable(items):
        # Two keys without an id cannot be told apart, and are both kept, so that neither is taken for the only one.
        name = (key.id, key.algorithm) if key.id is not None else (f"\0{len(found)}", key.algorithm)
        if key.algorithm in algorithms:
            found.setdefault(name, key)
    return list(found.values())


def _usable(items: list[Any]) -> Iterator[Key]:
    for item in items:
        if isinstance(item, dict) and (key := _key(item)) is not None:
            yield key


def _key(item: dict[str, Any]) -> Key | None:
    kind, curve = item.get("kty"), item.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return None
    algorithm = _ALGORITHM_OF.get((kind, None if kind == "RSA" else curve))
    key_id = item.get("kid")
    if algorithm is None or not _is_for_signatures(item, algorithm):
        return None
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID):
        return None
    material = {name: item.get(name) for name in ("kty", "crv", "n", "e", "x", "y")}
    if not all(value is None or (isinstance(value, str) and len(value) <= _MAX_NUMBER) for value in material.values()):
        return None
    try:
        public = jwt.PyJWK({name: value for name, value in material.items() if value is not None}, algorithm)
    except Exception:  # noqa: BLE001 - whatever the libraries say of it, the other keys are good
        return None
    if isinstance(public.key, RSAPublicKey) and public.key.key_size not in _RSA_BITS:
        return None
    return Key(key_id, algorithm, public, (key_id, *material.values()))


def _is_for_signatures(item: dict[str, Any], algorithm: str) -> bool:
    operations = item.get("key_ops")
    return (
        # Tuples, because what came need not be hashable.
        item.get("alg") in (None, algorithm)
        and item.get("use") in (None, "sig")
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        and "d" not in item  # a private key that was published is anybody's
    )
