"""Why a token is refused: the few reasons that stand in metrics, and how the refusal of each is made.

In: a reason and a sentence for the client. Out: CredentialRefused. No sentence quotes the token.
"""

from typing import Final

from bobrai.domain.errors import CredentialRefused

MALFORMED: Final = "malformed"
ALGORITHM: Final = "algorithm"
ISSUER: Final = "issuer"
UNKNOWN_KEY: Final = "unknown_key"
SIGNATURE: Final = "signature"
AUDIENCE: Final = "audience"
EXPIRED: Final = "expired"
NOT_YET: Final = "not_yet"
LIFETIME: Final = "lifetime"
CLAIMS: Final = "claims"

REASONS: Final[dict[str, str]] = {
    MALFORMED: "it is no signed JWT, is too large, or lacks a claim that it must have",
    ALGORITHM: "it is signed by an algorithm that is not allowed",
    ISSUER: "its issuer is not configured",
    UNKNOWN_KEY: "its issuer has no key that it names",
    SIGNATURE: "its signature is wrong",
    AUDIENCE: "it is for somebody else",
    EXPIRED: "it has ended",
    NOT_YET: "it begins later",
    LIFETIME: "it is valid for longer than the settings allow",
    CLAIMS: "it is right, and grants nothing here",
}


def refused(reason: str, message: str) -> CredentialRefused:
    """Return the error to raise."""
    return CredentialRefused(reason, message)
