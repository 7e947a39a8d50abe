"""How often principals and addresses may ask: token buckets in memory, without a statement per request.

In: who asks, and how many API processes live. Out: how much is left, for the answer's headers, or RateLimited. Each
process grants its share of a principal's rate; together they grant the rate, as far as requests come to all alike.
The arithmetic is the library's: GCRA, which is a token bucket that keeps one number.
"""

import math
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from throttled import RateLimiterType, Throttled
from throttled.rate_limiter import Quota, RateLimitState
from throttled.rate_limiter import Rate as Per
from throttled.store import MemoryStore

from bobrai.domain.access import Principal, PrincipalKind, Rate, Standing
from bobrai.domain.errors import RateLimited
from bobrai.settings.auth import AuthSettings
from bobrai.telemetry import metrics

_ADDRESSES: Final = 50_000  # of which the buckets are kept: those that asked last
_PRINCIPALS: Final = 10_000
_IPV6_NETWORK: Final = 64  # bits that one customer of a provider has to themselves
_ANONYMOUS: Final = "anonymous"
_REFUSED: Final = "refused"
_WORDS: Final = {
    PrincipalKind.KEY: "The key may make {rate} requests",
    PrincipalKind.OIDC: "The subject of the token may make {rate} requests",
    _ANONYMOUS: "An address may make {rate} requests without a credential",
    _REFUSED: "An address may show {rate} credentials that are not valid, or wait in vain for an issuer's keys",
}


class Throttle:
    """Buckets of principals, of addresses that show no credential, and of addresses whose credentials are refused."""

    def __init__(self, settings: AuthSettings) -> None:
        self.replicas = 1
        self._default = settings.rate
        self._anonymous = settings.anonymous_rate
        self._refused = settings.refused_rate
        self._principals = MemoryStore(options={"MAX_SIZE": _PRINCIPALS})
        self._addresses = MemoryStore(options={"MAX_SIZE": _ADDRESSES})
        self._limiter = lru_cache(maxsize=4096)(self._make)

    def ask(self, principal: Principal, address: str) -> Standing | None:
        """Count a request; returns what is left, None where there is no bound. Raises RateLimited."""
        if principal.kind is PrincipalKind.ANONYMOUS:
            if self._anonymous is None:
                return None
            return self._count(_ANONYMOUS, _network(address), self._anonymous, None, 1)
        allowance = principal.allowance
        rate = allowance.rate or self._default
        if rate is None:
            return None
        return self._count(principal.kind, principal.id, rate, allowance.burst, self.replicas)

    def look_at(self, address: str) -> None:
        """Raise RateLimited when an address has shown too much that proves nothing, before more effort is spent on it.

        Addresses are in no process's share: whoever forges credentials meets every replica's bound.
        """
        if self._refused is not None:
            state = self._limiter(_REFUSED, self._refused, None, 1).peek(_REFUSED + _network(address))
            if state.remaining < 1:
                self._limit(_REFUSED, self._refused, None, state, limited=True)

    def refused(self, address: str) -> None:
        """Count a credential that proved nothing; raises RateLimited instead of letting it be told why."""
        if self._refused is not None:
            self._count(_REFUSED, _REFUSED + _network(address), self._refused, None, 1)

    def _count(self, policy: str, key: str, rate: Rate, burst: int | None, replicas: int) -> Standing:
        result = self._limiter(policy, rate, burst, replicas).limit(key)
        return self._limit(policy, rate, burst, result.state, limited=result.limited)

    @staticmethod
    def _limit(policy: str, rate: Rate, burst: int | None, state: RateLimitState, *, limited: bool) -> Standing:
        quota = burst or rate.count
        window = max(math.ceil(quota * rate.seconds / rate.count), 1)
        retry = max(math.ceil(state.retry_after), 1) if limited else 0
        standing = Standing(policy, quota, window, state.remaining, math.ceil(state.reset_after), retry)
        if limited:
            metrics.ACCESS_THROTTLED.labels(policy).inc()
            raise RateLimited(f"{_WORDS[policy].format(rate=rate)}; try again in {retry} s", standing)
        return standing

    def _make(self, policy: str, rate: Rate, burst: int | None, replicas: int) -> Throttled:
        # So many requests in the period of all replicas is one replica's share, whatever does not divide evenly.
        share = Quota(
            Per(timedelta(seconds=rate.seconds * replicas), rate.count),
            burst=math.ceil((burst or rate.count) / replicas),
        )
        # So that a flood from many addresses makes nobody forget what a principal has used.
        store = self._addresses if policy in {_ANONYMOUS, _REFUSED} else self._principals
        return Throttled(using=RateLimiterType.GCRA.value, quota=share, store=store)


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """Return what stands for an address: itself, or the network that it may choose it from."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
    return address
