"""A token is verified once: known until it ends, in bounded number, for next to nothing."""

import time
from typing import Any

import pytest

from bobrai.access import refusals
from bobrai.domain.errors import CredentialRefused
from tests.integration.oidc.conftest import MakeVerifier
from tests.support.eventually import eventually
from tests.support.identity_provider import IdentityProvider


async def test_a_token_is_verified_once_and_known_until_it_ends(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, leeway_seconds=1)
    token = provider.token(claims={"exp": time.time() + 4})
    first = await verifier.principal(token)
    assert all([await verifier.principal(token) is first for _ in range(100)])
    assert verifier.verifications == 1
    reasons: list[str] = []

    async def ended() -> bool:
        try:
            await verifier.principal(token)
        except CredentialRefused as error:
            reasons.append(error.reason)
        return bool(reasons)

    await eventually(ended, 20)
    assert reasons == [refusals.EXPIRED]
    assert verifier.verifications == 2


async def test_what_was_refused_is_not_kept(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider)
    forged = provider.token(signed="by_another")
    for count in (1, 2):
        with pytest.raises(CredentialRefused):
            await verifier.principal(forged)
        assert verifier.verifications == count


async def test_the_tokens_used_least_lately_are_forgotten(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, max_cached=2)
    one, two, three = (provider.token("EdDSA", claims={"sub": name}) for name in ("one", "two", "three"))
    for token in (one, two, one, three, one):
        await verifier.principal(token)
    assert verifier.verifications == 3
    await verifier.principal(two)
    assert verifier.verifications == 4


async def test_a_known_token_costs_a_small_part_of_verifying_it_and_never_waits(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider)
    token = provider.token(claims={"groups": [f"group-{number}" for number in range(50)]})
    await verifier.principal(token)
    call: Any = verifier.principal(token)
    with pytest.raises(StopIteration) as answered:
        call.send(None)
    assert answered.value.value.id == "oidc:idp:somebody"

    async def fastest(tokens: list[str]) -> float:
        times = []
        for each in tokens:
            began = time.perf_counter()
            await verifier.principal(each)
            times.append(time.perf_counter() - began)
        return min(times)

    fresh = await fastest([provider.token(claims={"sub": str(number)}) for number in range(30)])
    known = await fastest([token] * 300)
    assert known * 5 < fresh
