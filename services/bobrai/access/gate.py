"""The gate of the API: whom a request is from, by the key or the token that it shows, and whether it comes too often.

In: the Authorization header and the address of a request. Out: a principal and what it has left; CredentialRefused,
RateLimited, or Unavailable where nobody can tell now. A credential that proves nothing is refused, also where a request
without any would be let in: whoever shows one wants to know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from bobrai.access import refusals, secrets
from bobrai.access.declaring import Declarations
from bobrai.access.keyring import Keyring
from bobrai.access.replicas import Replicas
from bobrai.access.throttle import Throttle
from bobrai.domain.access import Principal, Standing, anonymous
from bobrai.domain.errors import CredentialRefused, DatabaseUnavailable, IssuerUnavailable
from bobrai.settings import Settings
from bobrai.settings.oidc import IssuerSettings
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics

if TYPE_CHECKING:
    from bobrai.access.oidc import OidcVerifier

log = logs.get_logger(__name__)

_AWAY_SECONDS: Final = 1.0  # until the next look at a database that does not answer
_BEARER: Final = b"bearer"
_KEY: Final = secrets.PREFIX.encode("ascii")
_BEARER_KEY: Final = b"Bearer " + _KEY
_SCHEME_LENGTH: Final = len(b"Bearer ")
_NO_BEARER: Final = "A key is shown as Authorization: Bearer bobrai_…, with the word Bearer and a space before it"
_NO_KEY: Final = (
    "The bearer token is neither a key (bobrai_<id>_<secret>) nor of an identity provider that is known here"
)


class Duty(NamedTuple):
    """What is to be done every so many seconds for as long as the gate is open."""

    name: str
    seconds: float
    run_once: Callable[[], Awaitable[float]]
    wake_with: Callable[[Callable[[], None]], None] = lambda _: None  # takes what has a round done before its time


class Gate:
    """What an API process knows of principals."""

    def __init__(self, database: Database, patient: PatientDatabase, settings: Settings) -> None:
        auth = settings.auth
        self.anonymous = anonymous(auth.anonymous(settings.api.bind))
        self.keyring = Keyring(
            database, patient, refresh_seconds=auth.refresh_seconds, stale_seconds=auth.stale_seconds
        )
        self.is_away = False  # the database, for this room
        self._throttle = Throttle(auth)
        self._replicas = Replicas(database, self._throttle, refresh_seconds=auth.refresh_seconds)
        self._tokens = _verifier(auth.oidc, settings.api.max_requests)
        self._declarations = Declarations(patient, auth.keys, refresh_seconds=auth.refresh_seconds)
        self.duties = [
            Duty("declared_keys", auth.refresh_seconds, self._unless_away(self._declarations.run_once)),
            Duty("keys", auth.refresh_seconds, self._unless_away(self.keyring.run_once)),
            Duty("replicas", auth.refresh_seconds, self._unless_away(self._replicas.run_once)),
        ]
        if self._tokens is not None:
            self.duties.append(Duty("oidc", auth.refresh_seconds, self._tokens.run_once, self._tokens.wake_with))

    @property
    def loaded(self) -> bool:
        """Whether keys can be told from what is none, and those that were declared are made, if they can be."""
        return self.keyring.loaded and self._declarations.tried

    async def principal(self, header: bytes | None, address: str) -> Principal:
        """Return whom a request with this header is from.

        Raises CredentialRefused; RateLimited for an address that shows too many such; Unavailable when that cannot be
        known now. Another scheme than Bearer is for somebody else on the way, such as a gateway, unless it has our key.
        """
        if header is None:
            return self.anonymous
        # Nearly every request of a closed installation.
        if header.startswith(_BEARER_KEY) and (known := self.keyring.known(header[_SCHEME_LENGTH:])) is not None:
            return known
        scheme, _, token = header.replace(b"\t", b" ").strip().partition(b" ")
        is_bearer = scheme.lower() == _BEARER
        if not is_bearer and _KEY not in header:
            return self.anonymous
        token = token.strip()
        try:
            if not is_bearer:
                raise CredentialRefused(refusals.MALFORMED, _NO_BEARER)
            if (shown := secrets.read(token)) is not None:
                return await self._of_key(shown, address)
            if self._tokens is None:
                raise CredentialRefused(refusals.MALFORMED, _NO_KEY)
            return await self._tokens.principal(token.decode("latin-1"), partial(self._throttle.look_at, address))
        except CredentialRefused as error:
            metrics.ACCESS_REFUSED.labels(error.reason).inc()
            self._throttle.refused(address)
            raise
        except IssuerUnavailable as error:
            if error.held_up:  # which costs others more than a refusal
                self._throttle.refused(address)
            raise

    def count(self, principal: Principal, address: str) -> Standing | None:
        """Count a request; returns what is left, None where there is no bound. Raises RateLimited."""
        return self._throttle.ask(principal, address)

    def _unless_away(self, run_once: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
        """Return a duty that is silent while the database does not answer, of which the catalog's loop tells."""

        async def run() -> float:
            try:
                pause = await run_once()
            except DatabaseUnavailable as error:
                self.is_away = True
                if error.sqlstate:
                    raise
                log.debug("database.silent", error=str(error))
                return _AWAY_SECONDS
            self.is_away = False
            return pause

        return run

    async def close(self) -> None:
        """Leave the count of processes, and end what is under way."""
        await self._replicas.leave()
        if self._tokens is not None:
            await self._tokens.close()

    async def _of_key(self, shown: secrets.Shown, address: str) -> Principal:
        principal = self.keyring.principal(shown)
        if principal is None:
            self._throttle.look_at(address)
            await self.keyring.look_for_more()
            principal = self.keyring.principal(shown)
            if principal is None:
                raise CredentialRefused("unknown", "This key is not known", credential=f"key:{shown.key_id}")
        return principal


def _verifier(issuers: Sequence[IssuerSettings], max_requests: int) -> OidcVerifier | None:
    """Return the verifier of tokens, if any are taken; of all requests at most half wait for keys of issuers."""
    if not issuers:
        return None
    from bobrai.access.issuer_keys import MAX_WAITING
    from bobrai.access.oidc import OidcVerifier  # which takes its time to load

    most = max(1, min(MAX_WAITING, max_requests // (2 * len(issuers))))
    verifier = OidcVerifier(issuers, max_waiting=most)
    for issuer in issuers:
        metrics.OIDC_KEYS_AGE.labels(issuer.name).set_function(partial(_figure, verifier.ages, issuer.name))
        metrics.OIDC_USABLE_KEYS.labels(issuer.name).set_function(partial(_figure, verifier.usable, issuer.name))
        metrics.OIDC_WAITING.labels(issuer.name).set_function(partial(_figure, verifier.waiting, issuer.name))
        metrics.OIDC_KEYS_AGE_LIMIT.labels(issuer.name, "refresh").set(issuer.refresh_seconds)
        metrics.OIDC_KEYS_AGE_LIMIT.labels(issuer.name, "keep").set(issuer.keep_keys_seconds)
    return verifier


def _figure(figures: Callable[[], Mapping[str, float | None]], name: str) -> float:
    found = figures()[name]
    return float("inf") if found is None else found
