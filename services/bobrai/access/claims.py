"""What the claims of a verified token mean: who it is of, how people call them, and what they may do.

In: claims whose signature, issuer, audience and times are right. Out: a Principal, or CredentialRefused. No I/O.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bobrai.access import refusals
from bobrai.domain.access import Allowance, Grant, Principal, PrincipalKind
from bobrai.settings.oidc import IssuerSettings

MAX_SUBJECT: Final = 200  # characters; a longer one is replaced by its digest
MAX_NAME: Final = 100  # characters
_HASHED: Final = "sha256:"
_PLAIN_SUBJECT: Final = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


class _Given(NamedTuple):
    grant: Grant
    allowance: Allowance


class ClaimsReader:
    """What tokens of one issuer mean, by its settings."""

    def __init__(self, settings: IssuerSettings) -> None:
        self._issuer = settings.name
        self._scope_claim = settings.scope_claim
        self._name_claims = settings.name_claims
        self._roles = tuple((role.value, _Given(role.grant(), role.allowance())) for role in settings.roles)
        default = settings.default
        self._default = None if default is None else _Given(default.grant(), default.allowance())

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Return whom a token is of; raises CredentialRefused when nothing is granted, or nobody is named."""
        subject = claims.get("sub")
        if not (isinstance(subject, str) and subject):
            raise refusals.refused(refusals.MALFORMED, "the token has no claim sub, which says whom it is of")
        given = self._given(claims)
        if given is None:
            raise refusals.refused(
                refusals.CLAIMS, f"the claim {self._scope_claim} of the token has no value that grants anything here"
            )
        identity = principal_id(self._issuer, subject)
        return Principal(PrincipalKind.OIDC, identity, self._name(claims, subject), given.grant, given.allowance)

    def grant(self, claims: Mapping[str, Any]) -> Grant | None:
        """Return what the first role of the settings grants that the claims have, or else the default.

        Roles are not joined: a grant narrows, and the scopes of one with the queues of another is what neither gives.
        """
        given = self._given(claims)
        return None if given is None else given.grant

    def _given(self, claims: Mapping[str, Any]) -> "_Given | None":
        held = values(found(claims, self._scope_claim))
        return next((given for value, given in self._roles if value in held), self._default)

    def _name(self, claims: Mapping[str, Any], subject: str) -> str:
        for claim in self._name_claims:
            name = found(claims, claim)
            if isinstance(name, str) and name.strip() and name.isprintable():
                return name.strip()[:MAX_NAME]
        return _subject(subject)[:MAX_NAME]


def principal_id(issuer: str, subject: str) -> str:
    """Return what stands in rows: no two subjects have the same, and it is short and can be printed."""
    return f"oidc:{issuer}:{_subject(subject)}"


def _subject(subject: str) -> str:
    plain = len(subject) <= MAX_SUBJECT and _PLAIN_SUBJECT.fullmatch(subject) is not None
    # Nobody may be called as another's digest is.
    if plain and not subject.startswith(_HASHED):
        return subject
    return _HASHED + hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()


def found(claims: Mapping[str, Any], name: str) -> object:
    """Return the claim of this name; dots lead into objects, where no claim has the whole name. None: there is none."""
    if name in claims:
        return claims[name]
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        inner = claims.get(".".join(parts[:count]))
        if isinstance(inner, dict):
            return found(inner, ".".join(parts[count:]))
    return None


def values(claim: object) -> frozenset[str]:
    """Return the values of a claim: of a list its strings, of a string the words between spaces."""
    if isinstance(claim, str):
        return frozenset(claim.split(" ")) - {""}
    if isinstance(claim, list):
        return frozenset(value for value in claim if isinstance(value, str))
    return frozenset()
