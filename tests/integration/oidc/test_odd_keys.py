"""Whatever stands among the keys of an issuer, the others go on."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bobrai.access.oidc import OidcVerifier
from bobrai.domain.errors import CredentialRefused, IssuerUnavailable
from tests.integration.oidc.conftest import MakeVerifier, settings_of
from tests.support.identity_provider import KEYS, IdentityProvider, private_key, public_jwk

MEMBERS = ("kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d")
ALGORITHMS = ("RS256", "ES256", "EdDSA")
RIGHT = [{"use": "sig", "kid": f"odd-{each}", "alg": each, **public_jwk(private_key(each))} for each in ALGORITHMS]
WORDS = st.sampled_from(
    ["", "sig", "RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "AA", "\ud800", "é", *ALGORITHMS]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS | st.just("A" * 2_100),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS) | st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
ODD = JSON | st.builds(
    lambda right, changes: right | changes,
    st.sampled_from(RIGHT),
    st.dictionaries(st.sampled_from(MEMBERS), JSON, min_size=1),
)  # fmt: skip


async def test_a_key_with_anything_as_a_member_hides_no_others(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    token, good = provider.token(), published(provider)
    values: list[object] = [[], ["RS256"], ["sig"], {}, {"a": [1]}, 5, 1.5, True, None, "", "\ud800", "A" * 2_000]
    for member in (*MEMBERS, "x5c"):
        odd = [right | {member: value} for right in RIGHT for value in values]
        provider.behave(KEYS, body=json.dumps({"keys": [*odd, *good]}))
        assert await verifier_of(provider).principal(token), member


async def test_a_number_of_any_length_hides_no_others(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    odd = json.dumps(RIGHT[0])[:-1] + ', "n": ' + "9" * 10_000 + "}"
    body = json.dumps({"keys": published(provider)}).replace("[", f"[{odd}, ", 1)
    provider.behave(KEYS, body=body)
    assert await verifier_of(provider).principal(provider.token())


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(odd=st.lists(ODD, max_size=8))
def test_keys_of_every_shape_hide_no_others(provider: IdentityProvider, odd: list[Any]) -> None:
    async def look() -> None:
        verifier = OidcVerifier([settings_of(provider)])
        try:
            assert await verifier.principal(token)
            assert await verifier.run_once() > 0
        finally:
            await verifier.close()

    provider.behave(KEYS)
    token, good = provider.token("EdDSA"), published(provider)
    provider.behave(KEYS, body=json.dumps({"keys": [*odd, *good]}))
    asyncio.run(look())


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=JSON | st.fixed_dictionaries({"keys": JSON}))
def test_an_answer_of_every_shape_is_the_issuers_fault_alone(provider: IdentityProvider, body: object) -> None:
    async def look() -> None:
        verifier = OidcVerifier([settings_of(provider)])
        try:
            with pytest.raises((CredentialRefused, IssuerUnavailable)):
                await verifier.principal(token)
            assert await verifier.run_once() >= 0
        finally:
            await verifier.close()

    token = provider.token("EdDSA")
    provider.behave(KEYS, body=json.dumps(body))
    asyncio.run(look())


def published(provider: IdentityProvider) -> list[dict[str, Any]]:
    """The keys that the provider publishes."""
    with urllib.request.urlopen(provider.url + KEYS, timeout=10) as answer:
        keys: list[dict[str, Any]] = json.load(answer)["keys"]
    return keys
