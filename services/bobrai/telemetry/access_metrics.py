"""The metrics of who may do what: credentials, issuers, rates. Part of the list that `metrics.py` is."""

from typing import Final

from bobrai.telemetry.declaring import Process, counter, gauge

_API: Final[tuple[Process, ...]] = ("api",)

ACCESS_REFUSED = counter(
    "bobrai_access_refused_total",
    "Requests that were refused for who asked, by reason: missing, no credential; scope: it may do other things; also"
    " without a credential host and origin: a name or a page that is not served. Of the credential: malformed, unknown,"
    " expired, revoked; of a token also algorithm, issuer, unknown_key, signature, audience, not_yet, lifetime,"
    " claims.",
    ["reason"],
    by=_API,
)
OIDC_KEYS_AGE = gauge(
    "bobrai_oidc_keys_age_seconds",
    "Seconds since the keys of an identity provider were last read; infinite before the first time.",
    ["issuer"],
    by=_API,
)
OIDC_KEYS_AGE_LIMIT = gauge(
    "bobrai_oidc_keys_age_limit_seconds",
    "What that age means, by the settings: over refresh they could not be read again in time, over keep they count no"
    " longer, and tokens are answered with 503.",
    ["issuer", "limit"],
    by=_API,
)
OIDC_USABLE_KEYS = gauge(
    "bobrai_oidc_usable_keys",
    "Keys of an identity provider that tokens can be verified with now; with none, every token of it is refused.",
    ["issuer"],
    by=_API,
)
OIDC_WAITING = gauge(
    "bobrai_oidc_waiting_requests",
    "Requests that wait for the keys of an identity provider, because their tokens name one that is not known.",
    ["issuer"],
    by=_API,
)
OIDC_UNVERIFIED = counter(
    "bobrai_oidc_unverified_total",
    "Tokens that nobody could verify for want of their issuer's keys, by cause: unreadable; crowded, as many wait for"
    " them as may; hanging, reading them takes long. Answered with 503, or 429 where one address shows too many.",
    ["issuer", "cause"],
    by=_API,
)
ACCESS_THROTTLED = counter(
    "bobrai_access_throttled_total",
    "Requests that were answered with 429 for their number, by kind: key, oidc; anonymous and refused (credentials that"
    " prove nothing): of one address.",
    ["kind"],
    by=_API,
)
