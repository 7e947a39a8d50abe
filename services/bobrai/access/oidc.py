"""Verifies the tokens of OIDC issuers.

In: a JWT, as a client sent it. Out: the Principal that it is of; CredentialRefused when it proves nothing, and
IssuerUnavailable when nobody can tell now. A token is verified once, and known by its digest until it ends or its key
is withdrawn. Keys are the work of ``issuer_keys.py``, what claims mean that of ``claims.py``.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Final, NamedTuple

import jwt

from bobrai.access import refusals, secrets
from bobrai.access.claims import ClaimsReader
from bobrai.access.issuer_keys import MAX_WAITING, IssuerKeys, Look, nothing
from bobrai.access.jwks import MAX_KEY_ID, Key
from bobrai.domain.access import Principal
from bobrai.domain.errors import CredentialRefused
from bobrai.settings.oidc import ALGORITHMS, IssuerSettings

MAX_TOKEN: Final = 8 * 1024  # characters
MAX_CACHED: Final = 10_000  # tokens
_IDLE_SECONDS: Final = 3_600.0
# The signature may be missing, so that such a token is refused for its algorithm, which says more.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
# What a token that opens an API is called; one made for something else, as a logout, is no credential.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_LIKE_A_KEY: Final = "bobrai_"
_END_OF_TIME: Final = 1 << 53  # seconds; more is no exact number in JSON
_MAX_SAID: Final = 200  # characters of what settings say
_SHORT_NAMES: Final = {"Ed25519": "EdDSA"}  # RFC 9864 names the curve too
_TIMES: Final = ("exp", "nbf", "iat")
_REASONS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (jwt.InvalidIssuerError, refusals.ISSUER),
    (jwt.InvalidSignatureError, refusals.SIGNATURE),
    (jwt.InvalidAlgorithmError, refusals.ALGORITHM),
)


class _Issuer(NamedTuple):
    settings: IssuerSettings
    keys: IssuerKeys
    claims: ClaimsReader


class _Verified(NamedTuple):
    principal: Principal
    key: Key
    ends_at: float  # by the wall clock, as in the token


class OidcVerifier:
    """Knows the configured issuers and the tokens that were verified lately."""

    def __init__(
        self, issuers: Sequence[IssuerSettings], *, max_cached: int = MAX_CACHED, max_waiting: int = MAX_WAITING
    ) -> None:
        self._issuers = {
            each.issuer: _Issuer(each, IssuerKeys(each, max_waiting=max_waiting), ClaimsReader(each))
            for each in issuers
        }
        self._max_cached = max_cached
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self.verifications = 0
        """How many signatures were looked at."""

    async def principal(self, token: str, look: Look = nothing) -> Principal:
        """Return whom a token is of; raises CredentialRefused (with one of the reasons of ``refusals``), and
        IssuerUnavailable when the keys that would tell cannot be had. ``look`` is called before it waits for keys."""
        if len(token) > MAX_TOKEN:
            raise refusals.refused(refusals.MALFORMED, f"the token is longer than {MAX_TOKEN} characters")
        mark = secrets.mark(token.encode("utf-8", "surrogatepass"))
        if (known := self._verified.get(mark)) is not None:
            if known.ends_at > time.time() and known.key.good_until > time.monotonic():
                self._verified.move_to_end(mark)
                return known.principal
            del self._verified[mark]
        verified = await self._verify(token, look)
        self._verified[mark] = verified
        if len(self._verified) > self._max_cached:
            self._verified.popitem(last=False)
        return verified.principal

    async def run_once(self) -> float:
        """Read keys again where it is time; returns the seconds until it is time again. Outages are only logged."""
        pauses = await asyncio.gather(*(each.keys.refresh() for each in self._issuers.values()), return_exceptions=True)
        for pause in pauses:
            if isinstance(pause, BaseException):
                raise pause
        return min((pause for pause in pauses if isinstance(pause, float)), default=_IDLE_SECONDS)

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Have this called when ``run_once`` is to be called before the time that it said."""
        for issuer in self._issuers.values():
            issuer.keys.wake = wake

    def waiting(self) -> dict[str, int]:
        """Return for each issuer's name how many requests wait for its keys."""
        return {each.settings.name: each.keys.waiting for each in self._issuers.values()}

    def usable(self) -> dict[str, int]:
        """Return for each issuer's name how many of its keys tokens can be verified with now."""
        return {each.settings.name: each.keys.usable for each in self._issuers.values()}

    def ages(self) -> dict[str, float | None]:
        """Return for each issuer's name the seconds since its keys were last read; None: never."""
        return {each.settings.name: each.keys.age for each in self._issuers.values()}

    async def close(self) -> None:
        """End fetches under way and close every connection."""
        for issuer in self._issuers.values():
            await issuer.keys.close()

    async def _verify(self, token: str, look: Look) -> _Verified:
        header, unverified = _parts(token)
        named, key_id = _checked(header)
        algorithm = _SHORT_NAMES.get(named, named)
        # Which issuer to ask is all that is taken from a token before its signature was verified.
        name = unverified.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise refusals.refused(refusals.ISSUER, "the token is of an issuer that is not configured here")
        if algorithm not in issuer.settings.algorithms:
            raise _algorithm_refused(issuer.settings.algorithms)
        key = await issuer.keys.find(key_id, algorithm, look)
        self.verifications += 1
        try:
            claims = _verified_claims(token, key, named, issuer.settings)
        except CredentialRefused as error:
            newer = None
            if error.reason == refusals.SIGNATURE:
                newer = await issuer.keys.find_newer(key, key_id, look)
            if newer is None:
                raise
            key = newer
            self.verifications += 1
            claims = _verified_claims(token, key, named, issuer.settings)
        _check_times(claims, issuer.settings)
        return _Verified(issuer.claims.principal(claims), key, int(claims["exp"]) + issuer.settings.leeway_seconds)


def _parts(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims, of which nothing is verified."""
    if token.startswith(_LIKE_A_KEY):
        raise refusals.refused(
            refusals.MALFORMED, "this looks like an API key and is none: those are bobrai_<id>_<secret>"
        )
    if _COMPACT.fullmatch(token) is None:
        raise refusals.refused(
            refusals.MALFORMED,
            "the token is no signed JWT, which is three parts of base64url between dots: have the provider issue JWT "
            "access tokens, not opaque ones",
        )
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise refusals.refused(refusals.MALFORMED, f"the token is no signed JWT: {_said(error)}") from None
    return parts["header"], parts["payload"]


def _checked(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return algorithm and key id of a header in which nothing is unexpected."""
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or _SHORT_NAMES.get(algorithm, algorithm) not in ALGORITHMS:
        raise _algorithm_refused(ALGORITHMS)
    if "crit" in header or "b64" in header:
        raise refusals.refused(refusals.MALFORMED, "the token's header has crit or b64, which is not supported")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise refusals.refused(
            refusals.MALFORMED, "the token's typ is neither JWT nor at+jwt: it is for something else"
        )
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID):
        raise refusals.refused(refusals.MALFORMED, f"the token's kid must be text of 1 to {MAX_KEY_ID} characters")
    return algorithm, key_id


def _algorithm_refused(allowed: Sequence[str]) -> CredentialRefused:
    return refusals.refused(refusals.ALGORITHM, f"the token must be signed by {' or '.join(allowed)}")


def _verified_claims(token: str, key: Key, named: str, settings: IssuerSettings) -> Mapping[str, Any]:
    jwk = key.jwk
    if named != key.algorithm:  # the library knows one name only, of which the other is a synonym
        jwk = copy(jwk)
        jwk.algorithm_name = named
    try:
        return jwt.decode(
            token,
            jwk,
            algorithms=[named],
            audience=settings.audiences,
            issuer=settings.issuer,
            leeway=settings.leeway_seconds,
            options={"require": ["iss", "aud", "exp", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise refusals.refused(refusals.EXPIRED, "the token has expired") from None
    except jwt.ImmatureSignatureError:
        raise refusals.refused(refusals.NOT_YET, "the token is not valid yet: look at the clocks") from None
    except (jwt.MissingRequiredClaimError, jwt.InvalidAudienceError) as error:
        if not isinstance(error, jwt.MissingRequiredClaimError) or error.claim == "aud":
            wanted = " or ".join(map(repr, settings.audiences))[:_MAX_SAID]
            raise refusals.refused(
                refusals.AUDIENCE, f"the token is for somebody else: its claim aud must have {wanted}"
            ) from None
        raise refusals.refused(refusals.MALFORMED, f"the token has no claim {error.claim}") from None
    except jwt.PyJWTError as error:
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), refusals.MALFORMED)
        raise refusals.refused(reason, f"the token is refused: {_said(error)}") from None


def _check_times(claims: Mapping[str, Any], settings: IssuerSettings) -> None:
    for name in _TIMES:
        # The library takes text as well.
        if name in claims and not _is_moment(claims[name]):
            raise refusals.refused(refusals.MALFORMED, f"the token's claim {name} must be a number of seconds")
    if not settings.max_lifetime_seconds:
        return
    if "iat" not in claims:
        raise refusals.refused(refusals.LIFETIME, "the token has no claim iat, so that nobody knows how long it lives")
    if claims["exp"] - claims["iat"] > settings.max_lifetime_seconds:
        raise refusals.refused(
            refusals.LIFETIME, f"the token is valid for longer than {settings.max_lifetime_seconds:g} s"
        )


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _END_OF_TIME


def _said(error: jwt.PyJWTError) -> str:
    # What the library says of a token that is no text may quote it.
    return str(error).split(":", 1)[0][:200] or type(error).__name__
