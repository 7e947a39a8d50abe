"""What a variable's text may be: numbers, addresses, lists of names, URLs, each checked and told apart in clear words.

In: the text. Out: types for the fields of the groups, and URLs that hold their credentials. Next: the groups.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Final
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from bobrai.domain import limits
from bobrai.domain.access import ALL_SCOPES, Rate, Scope

Seconds = Annotated[float, Field(gt=0, le=limits.MAX_DELAY_SECONDS)]
Period = Annotated[float, Field(ge=0, le=10 * limits.MAX_DELAY_SECONDS)]  # seconds; 0 has a meaning of its own
Count = Annotated[int, Field(ge=1)]


_ENCODE: Final = (
    "percent-encode what is special in user and password (/ is %2F, @ %40, # %23, ? %3F, : %3A, [ %5B, comma %2C), or "
    "leave them out and set the variables that end in _USER and _PASSWORD"
)
_ROOT_PATH: Final = re.compile(r"(?:/(?!\.+(?:/|$))[A-Za-z0-9._~-]+)+")
_MAX_ROOT_PATH: Final = 200
_ORIGIN: Final = re.compile(
    r"(?P<site>(?P<scheme>https?)://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]))(?::(?P<port>[0-9]{1,5}))?"
)
_HOST_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:]*:[0-9a-f:.]*")
_OWN_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")


def _postgresql_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url and url.partition("://")[0].lower() not in {"postgresql", "postgres"}:
        raise ValueError("must start with postgresql://")
    _check_parts(url)
    return value


def _amqp_urls(value: SecretStr) -> SecretStr:
    for url in filter(None, map(str.strip, value.get_secret_value().split(","))):
        if url.partition("://")[0].lower() not in {"amqp", "amqps"}:
            raise ValueError(f"must start with amqp:// or amqps://, each of several; {_ENCODE}")
        _check_parts(url)
    return value


def _check_parts(url: str) -> None:
    """Raise ValueError when a URL falls apart at its password, as at the first slash of one; never quotes the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:  # which may quote it
        raise ValueError(f"is no URL: {_ENCODE}") from None
    # What is in order has its @ before the host; behind it one is allowed, as in a user of Azure's in the query.
    if "#" in url or ("@" not in parts.netloc and _has_lost_host(parts)):
        raise ValueError(f"has an @ behind its host, or a #: {_ENCODE}")
    for host in parts.netloc.rpartition("@")[2].split(","):
        found = _HOST.fullmatch(host)
        if found is None or int(found[1] or 0) > 65535:
            raise ValueError(f"has a port that is no number up to 65535: {_ENCODE}")


def _has_lost_host(parts: SplitResult) -> bool:
    return "@" in parts.path or any("@" in item.partition("=")[0] for item in parts.query.split("&"))


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, for example 0.0.0.0:8001")
    return value


def with_credentials(url: str, user: str, password: SecretStr) -> str:
    """Return the URL with these credentials in place of its own; an empty one leaves what the URL says."""
    if not url:
        return ""
    netloc = urlsplit(url).netloc
    own, _, hosts = netloc.rpartition("@")
    own_user, _, own_password = own.partition(":")
    user = quote(user, safe="") or own_user
    secret = quote(password.get_secret_value(), safe="") or own_password
    credentials = f"{user}:{secret}@" if secret else f"{user}@" if user else ""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{credentials}{hosts}{rest[len(netloc) :]}"


def without_secrets(value: str) -> str:
    """Return a secret for people to see: of checked URLs all but the passwords, of anything else nothing."""
    if "://" not in value:
        return "***"
    shown = re.sub(r"(?<=://)([^:/]*):[^/?]*@", r"\1:***@", value)
    return re.sub(r"([?&]\w*password=)[^&,\s]*", r"\1***", shown)


def split_address(value: str) -> tuple[str, int]:
    """Return host and port of a checked ``HOST:PORT``; brackets of an IPv6 host are removed."""
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(value: str) -> bool:
    """Whether a checked ``HOST:PORT`` is reached from this machine alone."""
    return is_loopback_host(split_address(value)[0])


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine, as itself alone reaches it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_root_path(value: str) -> bool:
    """Whether this is a path under which a gateway may serve the API: nothing that leads elsewhere or is read twice."""
    return len(value) <= _MAX_ROOT_PATH and _ROOT_PATH.fullmatch(value) is not None


def _root_path(value: str) -> str:
    if value and not is_root_path(value):
        raise ValueError(
            "must begin with / and not end with it, as /bobrai does: letters, digits, '.', '_', '~' and '-' between "
            f"slashes, no part of dots alone, at most {_MAX_ROOT_PATH} characters"
        )
    return value


def _networks(value: object) -> object:
    names = _names(value)
    return tuple(map(_network, names)) if isinstance(names, tuple) else names


def _network(value: object) -> object:
    try:
        return ip_network(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"must be addresses or networks, such as 10.0.0.0/8,::1: {error}") from None


def _origins(value: object) -> object:
    names = _names(value)
    if not isinstance(names, tuple):
        return names
    if "*" in names and len(names) > 1:
        raise ValueError("* stands for every origin: leave it alone, or name origins without it")
    return tuple(dict.fromkeys(name if name == "*" else _origin(name) for name in names))


def _origin(name: str) -> str:
    """Return an origin as browsers write it: in small letters, without the port that its scheme has anyway."""
    found = _ORIGIN.fullmatch(name.lower())
    if found is None or not 0 < int(found["port"] or 1) <= 65535:
        raise ValueError(
            f"{name!r} is no origin: scheme and host in ASCII, perhaps a port, and nothing behind it, such as "
            "https://app.example.org; or * alone for every origin"
        )
    port = found["port"]
    own = port is None or int(port) == _OWN_PORTS[found["scheme"]]
    return found["site"] if own else f"{found['site']}:{int(port)}"


def _hosts(value: object) -> object:
    names = _names(value)
    return tuple(dict.fromkeys(map(_host_name, names))) if isinstance(names, tuple) else names


def _host_name(value: str) -> str:
    name = value.lower().strip("[]").rstrip(".")
    if name != "*" and _HOST_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{value!r} is no host: a name or an address in ASCII without a port, such as bobrai.internal or "
            "*.example.org; or * for every host"
        )
    return name


def _names(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _scopes(value: object) -> object:
    names = _names(value)
    if not isinstance(names, tuple):
        return names
    if names == ("none",):
        return frozenset()
    for name in names:
        if name not in set(Scope):
            raise ValueError(f"{name!r} is not a scope: {', '.join(Scope)}, or none alone")
    if not names:
        raise ValueError(f"must name scopes, or be none: {', '.join(Scope)}")
    scopes = frozenset(map(Scope, names))
    return ALL_SCOPES if Scope.ADMIN in scopes else scopes


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    return None if value == "none" else Rate.parse(value)


def checked_queues(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, each once; raises ValueError for one that no task can have, and for none at all."""
    if not names:
        raise ValueError(f"must name a queue: {limits.QUEUE_RULE}")
    for name in names:
        if not re.fullmatch(limits.QUEUE_PATTERN, name):
            raise ValueError(f"{name!r} cannot be the name of a queue: {limits.QUEUE_RULE}")
    return tuple(dict.fromkeys(names))


RootPath = Annotated[str, AfterValidator(_root_path)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)]
Address = Annotated[str, AfterValidator(_address)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
MaybeRate = Annotated[Rate | None, BeforeValidator(_rate)]
Scopes = Annotated[frozenset[Scope], NoDecode, BeforeValidator(_scopes)]
Queues = Annotated[Names, AfterValidator(checked_queues)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_postgresql_url)]
AmqpUrls = Annotated[SecretStr, AfterValidator(_amqp_urls)]
