"""The keys that an issuer publishes, of which those are kept that may verify a token.

In: the bytes of a JSON Web Key Set. Out: keys, and why others are left out; or ValueError. No I/O. Next:
``issuer_keys.py``.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

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


# The same algorithm by the name that says its curve too (RFC 9864).
_NAMED_FULLY: Final = {"EdDSA": "Ed25519"}
_MAX_SHOWN: Final = 20  # characters of a name in a key


@dataclass(slots=True, eq=False)
class Key:
    """One key of an issuer. ``good_until``, by the monotonic clock, is when nothing that it signed counts any more."""

    id: str | None
    algorithm: str
    jwk: jwt.PyJWK
    material: tuple[object, ...]
    good_until: float = inf


Keys: TypeAlias = Mapping[tuple[str | None, str], Key]


class Parsed(NamedTuple):
    """The keys of a set that can be used, and why how many of the others cannot."""

    keys: list[Key]
    left_out: Mapping[str, int]


def parsed(body: bytes, algorithms: Collection[str]) -> Parsed:
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
    left_out: Counter[str] = Counter()
    for item in items:
        key = _key(item) if isinstance(item, dict) else "no object"
        if isinstance(key, str):
            left_out[key] += 1
        elif key.algorithm not in algorithms:
            left_out[f"for {key.algorithm}, which the settings do not allow"] += 1
        else:
            # Two keys without an id cannot be told apart, and are both kept, so that neither is taken for the only one.
            name = (key.id, key.algorithm) if key.id is not None else (f"\0{len(found)}", key.algorithm)
            found.setdefault(name, key)
    return Parsed(list(found.values()), left_out)


def _key(item: dict[str, Any]) -> Key | str:
    """Return the key, or why it cannot be used, in words of which there are few."""
    kind, curve, key_id = item.get("kty"), item.get("crv"), item.get("kid")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return "malformed"
    algorithm = _ALGORITHM_OF.get((kind, None if kind == "RSA" else curve))
    if algorithm is None:
        return f"of another kind ({_shown(kind)}{f' {_shown(curve)}' if curve else ''})"
    if fault := _fault_of_use(item, algorithm):
        return fault
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID):
        return "malformed"
    material = {name: item.get(name) for name in ("kty", "crv", "n", "e", "x", "y")}
    if not all(value is None or (isinstance(value, str) and len(value) <= _MAX_NUMBER) for value in material.values()):
        return "malformed"
    try:
        public = jwt.PyJWK({name: value for name, value in material.items() if value is not None}, algorithm)
    except Exception:  # noqa: BLE001 - whatever the libraries say of it, the other keys are good
        return "malformed"
    if isinstance(public.key, RSAPublicKey) and public.key.key_size not in _RSA_BITS:
        return f"RSA of {public.key.key_size} bits"
    return Key(key_id, algorithm, public, (key_id, *material.values()))


def _fault_of_use(item: dict[str, Any], algorithm: str) -> str:
    """Return why a key is not for signatures of the algorithm; empty: it is."""
    named, use, operations = item.get("alg"), item.get("use"), item.get("key_ops")
    if "d" in item:
        return "published with its private half"  # so that it is anybody's
    # No sets here, because what came need not be hashable.
    if named is not None and named not in (algorithm, _NAMED_FULLY.get(algorithm)):
        return f"for {_shown(named)}" if isinstance(named, str) else "malformed"
    if use not in (None, "sig") or not (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    ):
        return "for something else than signatures"
    return ""


def _shown(text: str) -> str:
    return ascii(text[:_MAX_SHOWN])[1:-1]
