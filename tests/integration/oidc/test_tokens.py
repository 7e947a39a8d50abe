"""Which tokens are taken, and why the others are not: ordered from a provider that signs anything."""

import base64
import json
import time
from typing import Any

import pytest

from bobrai.access import refusals
from bobrai.access.oidc import MAX_TOKEN, OidcVerifier
from bobrai.domain.access import PrincipalKind, Scope
from bobrai.domain.errors import CredentialRefused
from tests.integration.oidc.conftest import MakeProvider, MakeVerifier, settings_of
from tests.support.identity_provider import KEYS, IdentityProvider
from tests.support.processes import Processes
from tests.support.run_folder import RunFolder

NOW = time.time()


@pytest.fixture(scope="module")
def signing(module_processes: Processes, run_folder: RunFolder) -> IdentityProvider:
    """A provider for tests that order tokens of it, and change nothing about it."""
    return IdentityProvider(module_processes, run_folder.free_port())


async def refusal(verifier: OidcVerifier, token: str) -> str:
    """Why a token is refused; the text never holds it."""
    with pytest.raises(CredentialRefused) as caught:
        await verifier.principal(token)
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)
    assert caught.value.reason in refusals.REASONS
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_right_token_of_each_algorithm_is_taken(
    signing: IdentityProvider, verifier_of: MakeVerifier, algorithm: str
) -> None:
    token = signing.token(algorithm, claims={"sub": "b5a1", "preferred_username": "ada"})
    principal = await verifier_of(signing).principal(token)
    assert (principal.kind, principal.id, principal.name) == (PrincipalKind.OIDC, "oidc:idp:b5a1", "ada")
    assert principal.grant.scopes == {Scope.TASKS_READ}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"signed": "by_another"}, refusals.SIGNATURE),
        ({"signed": "with_public_key"}, refusals.ALGORITHM),
        ({"signed": "with_public_key", "header": {"alg": "RS256"}}, refusals.SIGNATURE),
        ({"signed": "not_at_all"}, refusals.ALGORITHM),
        ({"signed": "not_at_all", "header": {"alg": "None"}}, refusals.ALGORITHM),
        ({"signed": "not_at_all", "header": {"alg": "RS256"}}, refusals.SIGNATURE),
        ({"header": {"alg": "HS256"}}, refusals.ALGORITHM),
        ({"header": {"alg": "RS512"}}, refusals.ALGORITHM),
        ({"header": {"alg": ["RS256"]}}, refusals.ALGORITHM),
        ({"header": {"alg": None}}, refusals.ALGORITHM),
        ({"header": {"alg": "ES256"}}, refusals.UNKNOWN_KEY),  # the key that it names is for RSA
        ({"header": {"kid": "forged"}}, refusals.UNKNOWN_KEY),
        ({"header": {"kid": 7}}, refusals.MALFORMED),
        ({"header": {"kid": ""}}, refusals.MALFORMED),
        ({"header": {"kid": "k" * 257}}, refusals.MALFORMED),
        ({"header": {"crit": ["exp"], "exp": 1}}, refusals.MALFORMED),
        ({"header": {"crit": []}}, refusals.MALFORMED),
        ({"header": {"b64": True, "crit": ["b64"]}}, refusals.MALFORMED),
        ({"header": {"typ": "logout+jwt"}}, refusals.MALFORMED),
        ({"header": {"typ": 1}}, refusals.MALFORMED),
        ({"claims": {"iss": "https://elsewhere.example"}}, refusals.ISSUER),
        ({"claims": {"iss": None}}, refusals.ISSUER),
        ({"claims": {"iss": ["http://127.0.0.1"]}}, refusals.ISSUER),
        ({"claims": {"aud": "somebody-else"}}, refusals.AUDIENCE),
        ({"claims": {"aud": ["a", "b"]}}, refusals.AUDIENCE),
        ({"claims": {"aud": None}}, refusals.AUDIENCE),
        ({"claims": {"aud": {"bobrai": 1}}}, refusals.AUDIENCE),
        ({"claims": {"exp": NOW - 3600}}, refusals.EXPIRED),
        ({"claims": {"exp": None}}, refusals.MALFORMED),
        ({"claims": {"exp": str(int(NOW) + 86_400)}}, refusals.MALFORMED),
        ({"claims": {"exp": "soon"}}, refusals.MALFORMED),
        ({"claims": {"exp": True}}, refusals.EXPIRED),
        ({"claims": {"exp": 10**400}}, refusals.MALFORMED),
        ({"claims": {"exp": float("inf")}}, refusals.MALFORMED),
        ({"claims": {"exp": float("nan")}}, refusals.MALFORMED),
        ({"claims": {"nbf": NOW + 3600}}, refusals.NOT_YET),
        ({"claims": {"iat": NOW + 3600}}, refusals.NOT_YET),
        ({"claims": {"nbf": "1"}}, refusals.MALFORMED),
        ({"claims": {"sub": None}}, refusals.MALFORMED),
        ({"claims": {"sub": ""}}, refusals.MALFORMED),
        ({"claims": {"sub": 7}}, refusals.MALFORMED),
    ],
)
async def test_a_wrong_token_is_refused_for_what_is_wrong(
    signing: IdentityProvider, verifier_of: MakeVerifier, order: dict[str, Any], reason: str
) -> None:
    verifier = verifier_of(signing)
    await verifier.principal(signing.token())
    assert await refusal(verifier, signing.token(**order)) == reason


async def test_what_is_no_token_is_refused_without_asking_anybody(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier, right = verifier_of(provider), provider.token()
    head, body, signature = right.split(".")
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    number = base64.urlsafe_b64encode(json.dumps({"iss": provider.url}).encode()[:-1] + b',"exp":' + b"9" * 5000 + b"}")
    for wrong in (
        "", ".", "..", "a.b", f"{head}.{body}", f"{right}.{signature}", f"{right}=", f" {right}", f"{right}\n",
        f"{head}.{body}!.{signature}", f"é{right}", f"\ud800{right}", f"{deep}.{body}.{signature}",
        f"{head}.{deep}.{signature}", f"{head}.{number.decode().rstrip('=')}.{signature}",
        f"{head}.{body}.{'A' * MAX_TOKEN}",
    ):  # fmt: skip
        assert await refusal(verifier, wrong) == refusals.MALFORMED
    assert await refusal(verifier, provider.token(claims={"iss": "https://elsewhere.example"})) == refusals.ISSUER
    assert provider.fetches() == 0


async def test_every_changed_character_of_a_signature_is_noticed(
    signing: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(signing)
    for algorithm in ("RS256", "ES256", "EdDSA"):
        head, body, signature = signing.token(algorithm).split(".")
        for place in range(0, len(signature) - 1, 7):
            other = "A" if signature[place] != "A" else "B"
            forged = f"{head}.{body}.{signature[:place]}{other}{signature[place + 1 :]}"
            assert await refusal(verifier, forged) == refusals.SIGNATURE
        stolen = signing.token(algorithm, claims={"sub": "admin"}).split(".")[1]
        assert await refusal(verifier, f"{head}.{stolen}.{signature}") == refusals.SIGNATURE


async def test_only_allowed_algorithms_are_taken(signing: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(signing, algorithms=["ES256"])
    assert (await verifier.principal(signing.token("ES256"))).id == "oidc:idp:somebody"
    assert await refusal(verifier, signing.token("RS256")) == refusals.ALGORITHM


async def test_access_tokens_by_their_own_name_are_taken(signing: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(signing)
    for kind in ("at+jwt", "AT+JWT", "application/at+jwt", None):
        assert await verifier.principal(signing.token(header={"typ": kind}))


async def test_clocks_may_differ_by_the_leeway_and_no_more(
    signing: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(signing, leeway_seconds=120)
    now = time.time()
    assert await verifier.principal(signing.token(claims={"exp": now - 60, "iat": now - 90}))
    assert await verifier.principal(signing.token(claims={"nbf": now + 60, "iat": now + 60}))
    assert await refusal(verifier, signing.token(claims={"exp": now - 130})) == refusals.EXPIRED
    assert await refusal(verifier, signing.token(claims={"nbf": now + 240})) == refusals.NOT_YET


async def test_tokens_that_live_too_long_are_refused(signing: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(signing, max_lifetime_seconds=600)
    assert await verifier.principal(signing.token())
    assert await refusal(verifier, signing.token(claims={"exp": time.time() + 3600})) == refusals.LIFETIME
    assert await refusal(verifier, signing.token(claims={"iat": None})) == refusals.LIFETIME


async def test_a_token_without_a_key_id_is_taken_when_one_key_fits(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.05)
    assert await verifier.principal(provider.token(header={"kid": None}))
    provider.make_key("RS256")
    await verifier.run_once()
    assert await verifier.principal(provider.token("ES256", header={"kid": None}))


async def test_a_token_without_a_key_id_is_refused_when_several_fit(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    provider.make_key("RS256")
    assert await refusal(verifier_of(provider), provider.token(header={"kid": None})) == refusals.UNKNOWN_KEY


async def test_a_key_without_an_id_is_used_for_tokens_without_one(
    make_provider: MakeProvider, verifier_of: MakeVerifier
) -> None:
    provider = make_provider("EdDSA")
    provider.withdraw(provider.key_ids["EdDSA"])
    provider.make_key("EdDSA", "hidden", kid=None)
    verifier = verifier_of(provider)
    assert await verifier.principal(provider.token("EdDSA", kid="hidden", header={"kid": None}))
    assert await refusal(verifier, provider.token("EdDSA", kid="hidden")) == refusals.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("algorithm", "fields"),
    [
        ("RS256-1024", {"alg": "RS256"}),
        ("RS256", {"use": "enc"}),
        ("RS256", {"alg": "RS512"}),
        ("RS256", {"alg": "RSA-OAEP"}),
        ("RS256", {"alg": 5}),
        ("RS256", {"key_ops": ["sign"]}),
        ("RS256", {"d": "AQAB"}),
        ("RS256", {"n": None}),
        ("RS256", {"n": 5}),
        ("RS256", {"e": "AQ"}),
        ("ES256", {"crv": "P-384"}),
        ("ES256", {"x": "AAAA"}),
        ("EdDSA", {"crv": "X25519"}),
        ("EdDSA", {"kty": "oct", "k": "c2VjcmV0", "x": None, "crv": None}),
        ("EdDSA", {"kty": ["OKP"]}),
    ],
)
async def test_keys_for_other_things_are_never_used_and_hide_no_others(
    provider: IdentityProvider, verifier_of: MakeVerifier, algorithm: str, fields: dict[str, Any]
) -> None:
    provider.make_key(algorithm, "odd", **fields)
    for noise in (None, 5, [], "key", {}, {"kty": None}):
        provider.publish(noise)
    verifier = verifier_of(provider)
    assert await refusal(verifier, provider.token(kid="odd")) == refusals.UNKNOWN_KEY
    assert await verifier.principal(provider.token())


async def test_the_same_key_id_at_two_issuers_is_two_keys(
    make_provider: MakeProvider, verifier_of: MakeVerifier
) -> None:
    one, other = make_provider(), make_provider()
    assert one.key_ids == other.key_ids
    verifier = verifier_of(settings_of(one, name="one"), settings_of(other, name="other"))
    assert (await verifier.principal(one.token())).id == "oidc:one:somebody"
    assert (await verifier.principal(other.token())).id == "oidc:other:somebody"
    assert await refusal(verifier, one.token(claims={"iss": other.url})) == refusals.SIGNATURE


async def test_keys_that_a_header_brings_along_or_points_to_are_not_looked_at(
    provider: IdentityProvider, make_provider: MakeProvider, verifier_of: MakeVerifier
) -> None:
    attacker, verifier = make_provider("EdDSA"), verifier_of(provider)
    header = {"jku": attacker.url + KEYS, "jwk": {"kty": "oct", "k": "c2VjcmV0"}, "x5u": attacker.url + KEYS}
    token = attacker.token("EdDSA", claims={"iss": provider.url}, header={**header, "kid": provider.key_ids["EdDSA"]})
    assert await refusal(verifier, token) == refusals.SIGNATURE
    assert attacker.fetches() == 0


async def test_a_right_token_that_grants_nothing_is_told_apart(
    signing: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    roles = [{"value": "operator", "scopes": ["queues:control"]}]
    verifier = verifier_of(signing, scope_claim="realm_access.roles", roles=roles, default=None)
    assert await refusal(verifier, signing.token()) == refusals.CLAIMS
    token = signing.token(claims={"realm_access": {"roles": ["operator"]}})
    assert (await verifier.principal(token)).grant.scopes == {Scope.QUEUES_CONTROL}


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("opaque", "have the provider issue JWT access tokens, not opaque ones"),
        ("bobrai_x", "this looks like an API key and is none"),
        ({"claims": {"exp": 1}}, "the token has expired"),
        ({"claims": {"nbf": NOW + 3600}}, "the token is not valid yet"),
        ({"claims": {"aud": "somebody-else"}}, "its claim aud must have 'bobrai'"),
        ({"claims": {"aud": None}}, "its claim aud must have 'bobrai'"),
        ({"claims": {"aud": []}}, "its claim aud must have 'bobrai'"),
        ({"claims": {"aud": {}}}, "its claim aud must have 'bobrai'"),
        ({"claims": {"sub": None}}, "the token has no claim sub"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_so_that_somebody_can_mend_it(
    signing: IdentityProvider, verifier_of: MakeVerifier, token: str | dict[str, Any], told: str
) -> None:
    shown = token if isinstance(token, str) else signing.token(**token)
    with pytest.raises(CredentialRefused) as caught:
        await verifier_of(signing).principal(shown)
    assert told in str(caught.value)


async def test_ed25519_by_its_full_name_is_eddsa(make_provider: MakeProvider, verifier_of: MakeVerifier) -> None:
    provider = make_provider("EdDSA")
    verifier = verifier_of(provider, algorithms=["EdDSA"])
    fully = provider.make_key("EdDSA", "fully", alg="Ed25519")
    for kid in (fully, provider.key_ids["EdDSA"]):
        for alg in ("Ed25519", "EdDSA"):
            assert await verifier.principal(provider.token(kid=kid, header={"alg": alg}))
    forged = provider.token(kid=fully, header={"alg": "Ed25519"}, signed="by_another")
    assert await refusal(verifier, forged) == refusals.SIGNATURE
    assert await refusal(
        verifier_of(provider, algorithms=["RS256"]), provider.token("EdDSA", header={"alg": "Ed25519"})
    ) == (refusals.ALGORITHM)
