"""What a page in somebody's browser may have it send to us, where no credential shows that the person means it.

In: a request without a credential that would be served. Out: nothing, or a 403 problem. A page of another origin may
change nothing (the rules are those of CrossOriginProtection in Go's net/http, by Filippo Valsorda), and a page whose
name was made to lead here (DNS rebinding) may not even ask. What other pages may read of answers: ``cors``.
"""

import re
from functools import lru_cache
from typing import Final

from bobrai.api import problems
from bobrai.api.web import Request
from bobrai.settings import Settings
from bobrai.settings.values import is_loopback, is_loopback_host
from bobrai.telemetry import metrics

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGE: Final = frozenset({b"same-origin", b"none"})  # none: the person wrote the address, or a program sends it
_PORT: Final = re.compile(r":[0-9]*$")


class Browsers:
    """The rules of one API."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(each.encode("ascii") for each in settings.api.cors_origins)
        self._hosts = settings.auth.anonymous_hosts
        opened = is_loopback(settings.api.bind) and bool(settings.auth.anonymous(settings.api.bind))
        # Whoever set up a proxy on this machine means its name to lead here.
        self._only_local = self._hosts is None and opened and not settings.api.trusted_proxies
        self._is_served = lru_cache(maxsize=256)(self._may_name)

    def check_name(self, request: Request) -> None:
        """Raise a 403 problem for a request of a scrape or the like that no machine of ours would make.

        Names of the settings do not count: scrapes name addresses.
        """
        if self._only_local:
            self._check_host(request.headers.get(b"host", b""))

    def check(self, request: Request) -> None:
        """Raise a 403 problem for what the person at the browser cannot be known to mean."""
        host = request.headers.get(b"host", b"")
        self._check_host(host)
        if request.method not in _SAFE and self._is_foreign(request, host):
            metrics.ACCESS_REFUSED.labels("origin").inc()
            raise problems.cross_origin()

    def _check_host(self, host: bytes) -> None:
        if not self._is_served(host):
            metrics.ACCESS_REFUSED.labels("host").inc()
            raise problems.foreign_host(_name(host))

    def _may_name(self, host: bytes) -> bool:
        name = _name(host)
        if self._hosts is not None:
            return any(_matches(pattern, name) for pattern in self._hosts)
        return not self._only_local or not name or is_loopback_host(name) or name.endswith(".localhost")

    def _is_foreign(self, request: Request, host: bytes) -> bool:
        site, origin = request.headers.get(b"sec-fetch-site"), request.headers.get(b"origin")
        if site in _OWN_PAGE or (site is None and origin is None):
            return False
        if origin in self._origins:  # one that is named; * lets pages read what they may ask for
            return False
        # Browsers say the site only to addresses that they trust, which plain HTTP is not; the origin they always say.
        return site is not None or origin is None or origin.lower().partition(b"://")[2] != host.lower()


def _name(host: bytes) -> str:
    """Return the name, or the address without brackets, that a Host header has."""
    return _PORT.sub("", host.decode("latin-1").lower()).strip("[]").rstrip(".")


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
