"""Which issuers of OIDC tokens are trusted, and what the claims of their tokens grant.

In: a JSON array in one variable. Out: frozen values whose grants are checked already. Next: ``access/oidc.py``;
docs/oidc.md shows examples.
"""

import json
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import NoDecode

from bobrai.settings.grants import GrantSettings
from bobrai.settings.values import is_loopback_host

Algorithm = Literal["RS256", "ES256", "EdDSA"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256", "EdDSA")
MAX_ISSUERS: Final = 20
DISCOVERY: Final = "/.well-known/openid-configuration"

# What pydantic calls in Python's words.
_WORDS: Final = (
    ("Tuple should", "Array should"),
    ("a valid tuple", "an array"),
    ("a valid dictionary", "an object"),
    ("a valid list", "an array"),
    (" after validation", ""),
    (
        "String should match pattern '^[a-z0-9][a-z0-9._-]{0,31}$'",
        "must be 1 to 32 of a-z 0-9 . _ -, and begin with one of a-z 0-9",
    ),
)

_Text = Annotated[str, Field(min_length=1, max_length=500)]


class RoleSettings(GrantSettings):
    """What a token is granted whose scope claim has this value."""

    value: _Text


class IssuerSettings(BaseModel):
    """One issuer of tokens; what has no default must be said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
    issuer: _Text
    audiences: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=20)]
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ALGORITHMS
    jwks_url: Annotated[str, Field(max_length=500)] = ""
    ca_file: str = ""
    allow_http: bool = False
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    max_lifetime_seconds: Annotated[float, Field(ge=0, le=366 * 86_400)] = 0.0
    timeout_seconds: Annotated[float, Field(gt=0, le=8)] = 5.0
    refresh_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    unknown_key_pause_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    keep_keys_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 3_600.0
    scope_claim: _Text = "scope"
    name_claims: Annotated[tuple[_Text, ...], Field(max_length=10)] = ("preferred_username", "email")
    roles: Annotated[tuple[RoleSettings, ...], Field(max_length=100)] = ()
    default: GrantSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> "IssuerSettings":
        if fault := fault_of_url(self.issuer, allow_http=self.allow_http):
            raise ValueError(f"issuer {fault}")
        if self.issuer.rstrip("/").endswith(DISCOVERY):
            raise ValueError(
                f"issuer is what tokens have as iss, not the address of the discovery document: write "
                f"{self.issuer.rstrip('/').removesuffix(DISCOVERY)!r}"
            )
        if urlsplit(self.issuer).query:
            raise ValueError("issuer must be a URL without a query")
        if self.jwks_url and (fault := fault_of_url(self.jwks_url, allow_http=self.allow_http)):
            raise ValueError(f"jwks_url {fault}")
        values = [role.value for role in self.roles]
        if len(set(values)) < len(values):
            raise ValueError("roles: each value may stand there once, because the first that matches counts")
        if not self.roles and self.default is None:
            raise ValueError("there must be roles, or a default, or else every token would be refused")
        if self.keep_keys_seconds < self.refresh_seconds + self.timeout_seconds:
            raise ValueError(
                "keep_keys_seconds must be at least refresh_seconds and timeout_seconds together, or keys would be "
                "forgotten between two looks"
            )
        return self


def fault_of_url(url: str, *, allow_http: bool) -> str:
    """Return what is wrong with an address that keys are read from; empty: nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in {"https", "http"} or not host or not url.isascii() or not url.isprintable() or " " in url:
        return "must be a URL that begins with https://"
    if "@" in parts.netloc or "#" in url:
        return "must be a URL without user, password and fragment"
    if parts.scheme == "http" and not (allow_http or is_loopback_host(host)):
        return "must begin with https://: whoever can change keys on their way could be anybody; allow_http allows it"
    return ""


def _issuers(value: object) -> object:
    """Return the issuers of the array; raises ValueError that says which one is wrong, and where."""
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a JSON array of objects, one for each issuer")  # noqa: TRY004 - pydantic's way
    if len(value) > MAX_ISSUERS:
        raise ValueError(f"there may be at most {MAX_ISSUERS} issuers")
    faults: list[str] = []
    issuers = [_issuer(number, item, faults) for number, item in enumerate(value, 1)]
    if faults:
        raise ValueError("; ".join(faults))
    checked = [issuer for issuer in issuers if issuer is not None]
    for field in ("name", "issuer"):
        named = [getattr(issuer, field) for issuer in checked]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"two issuers have the same {field} {twice[0]!r}")
    return tuple(checked)


def _parsed(text: str) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be a JSON array of objects: {error}") from None
    except RecursionError:
        raise ValueError("must be a JSON array of objects: it is nested too deeply") from None


def _issuer(number: int, item: object, faults: list[str]) -> IssuerSettings | None:
    if isinstance(item, IssuerSettings):
        return item
    named = item.get("name") if isinstance(item, dict) else None
    place = f"issuer {number}" + (f" ({named[:32]!r})" if isinstance(named, str) else "")
    try:
        return IssuerSettings.model_validate(item)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            where = ".".join(map(str, fault["loc"]))
            message = _in_words_of_json(fault["msg"].removeprefix("Value error, "))
            if fault["type"] == "extra_forbidden":
                message = f"is not known; known are {', '.join(_known(fault['loc']))}"
            faults.append(f"{place}: {where}: {message}" if where else f"{place}: {message}")
        return None


def _in_words_of_json(message: str) -> str:
    for ours, theirs in _WORDS:
        message = message.replace(ours, theirs)
    return message


def _known(place: tuple[int | str, ...]) -> list[str]:
    kinds: dict[object, type[BaseModel]] = {"roles": RoleSettings, "default": GrantSettings}
    return list(kinds.get(place[0] if len(place) > 1 else None, IssuerSettings).model_fields)


Issuers = Annotated[tuple[IssuerSettings, ...], NoDecode, BeforeValidator(_issuers)]
