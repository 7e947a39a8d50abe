"""Keys of an issuer that changes them, is slow, answers nonsense, and goes away."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bobrai.access import refusals
from bobrai.access.oidc import OidcVerifier
from bobrai.domain.errors import CredentialRefused, IssuerUnavailable
from bobrai.telemetry import logs
from tests.integration.external_metrics.certificates import Authority
from tests.integration.oidc.conftest import MakeProvider, MakeVerifier, settings_of
from tests.support.eventually import eventually
from tests.support.identity_provider import DISCOVERY, KEYS, IdentityProvider
from tests.support.processes import Processes

Said = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def said() -> Iterator[Said]:
    """What was logged under a name."""
    with logs.captured() as lines:
        yield lambda name: [line for line in lines if line["event"] == name]


async def outcome(verifier: OidcVerifier, token: str) -> str:
    """The reason of a refusal, or "taken", or "unavailable"."""
    try:
        await verifier.principal(token)
    except CredentialRefused as error:
        return error.reason
    except IssuerUnavailable:
        return "unavailable"
    return "taken"


async def test_rotation_costs_nobody_anything(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider)
    await verifier.run_once()
    old = provider.token()
    new = provider.make_key("RS256")
    assert await outcome(verifier, provider.token(kid=new)) == "taken"
    assert await outcome(verifier, old) == "taken"
    assert provider.fetches() == 2
    # The next one comes within the pause: refused without asking, and known when it is over.
    newer = provider.make_key("ES256")
    assert await outcome(verifier, provider.token(kid=newer)) == refusals.UNKNOWN_KEY
    assert provider.fetches() == 2


async def test_after_the_pause_a_key_that_was_unknown_is_asked_for_again(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=0.2)
    assert await outcome(verifier, provider.token(header={"kid": "forged"})) == refusals.UNKNOWN_KEY
    token = provider.token(kid=provider.make_key("RS256"))

    async def taken() -> bool:
        return await outcome(verifier, token) == "taken"

    await eventually(taken)
    assert provider.fetches() == 2


async def test_a_flood_of_forged_key_ids_does_not_reach_the_issuer(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    right = provider.token()
    assert await outcome(verifier, right) == "taken"
    forged = [provider.token("EdDSA", header={"kid": f"forged-{number}"}) for number in range(500)]
    before = provider.fetches()
    assert set(await asyncio.gather(*(outcome(verifier, token) for token in forged))) == {refusals.UNKNOWN_KEY}
    assert {await outcome(verifier, token) for token in forged} == {refusals.UNKNOWN_KEY}
    assert await outcome(verifier, right) == "taken"
    assert provider.fetches() - before <= 1
    assert provider.fetches() <= 2


async def test_all_who_wait_share_one_fetch_and_one_who_leaves_ends_it_for_nobody(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    provider.behave(KEYS, delay_seconds=0.5)
    verifier = verifier_of(provider)
    tokens = [provider.token("EdDSA", claims={"sub": f"s{number}"}) for number in range(50)]
    waiting = [asyncio.ensure_future(outcome(verifier, token)) for token in tokens]
    await eventually(lambda: asyncio.to_thread(provider.fetches))
    waiting[0].cancel()
    assert set(await asyncio.gather(*waiting[1:])) == {"taken"}
    assert provider.fetches() == 1


async def test_a_withdrawn_key_opens_nothing_any_more_also_not_for_tokens_known_before(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.05)
    old, other = provider.token("RS256"), provider.token("ES256")
    assert [await outcome(verifier, token) for token in (old, other)] == ["taken", "taken"]
    provider.withdraw(provider.key_ids["RS256"])

    async def refused() -> bool:
        await verifier.run_once()
        return await outcome(verifier, old) == refusals.UNKNOWN_KEY

    await eventually(refused)
    assert await outcome(verifier, other) == "taken"


async def test_another_key_under_the_same_id_replaces_it(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.05)
    old = provider.token()
    assert await outcome(verifier, old) == "taken"
    provider.make_key("RS256", provider.key_ids["RS256"])

    async def refused() -> bool:
        await verifier.run_once()
        return await outcome(verifier, old) == refusals.SIGNATURE

    await eventually(refused)
    assert await outcome(verifier, provider.token()) == "taken"


async def test_an_issuer_that_withdraws_all_keys_is_believed(
    make_provider: MakeProvider, verifier_of: MakeVerifier, said: Said
) -> None:
    provider = make_provider("EdDSA")
    provider.withdraw(provider.key_ids["EdDSA"])
    verifier = verifier_of(provider)
    assert await outcome(verifier, provider.token("EdDSA")) == refusals.UNKNOWN_KEY
    [line] = said("oidc.keys_unusable")
    assert (line["left_out"], line["algorithms"]) == ("it publishes none", ["RS256", "ES256", "EdDSA"])
    assert verifier.usable() == {"idp": 0}


async def test_known_keys_outlive_the_issuers_absence_and_unknown_ones_are_nobodys_fault(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said
) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.05, unknown_key_pause_seconds=0.05)
    cached, fresh = provider.token(), provider.token(claims={"sub": "another"})
    unknown = provider.token(header={"kid": "new"})
    assert await outcome(verifier, cached) == "taken"
    provider.process.kill()

    async def noticed() -> bool:
        await verifier.run_once()
        return bool(said("oidc.keys_unreadable"))

    await eventually(noticed)
    assert await outcome(verifier, cached) == "taken"
    assert await outcome(verifier, fresh) == "taken"
    assert await outcome(verifier, unknown) == "unavailable"
    assert await outcome(verifier, unknown) == "unavailable"

    provider.start()
    new = provider.token(kid=provider.make_key("ES256"))

    async def known() -> bool:
        await verifier.run_once()
        return await outcome(verifier, new) == "taken"

    await eventually(known)
    assert await outcome(verifier, cached) == refusals.UNKNOWN_KEY
    assert len(said("oidc.keys_unreadable")) == 1
    assert len(said("oidc.keys_read")) == 2


async def test_keys_are_kept_for_a_bounded_time(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.1, timeout_seconds=3, keep_keys_seconds=4)
    token = provider.token()
    assert await outcome(verifier, token) == "taken"
    provider.process.kill()
    assert await outcome(verifier, token) == "taken"

    async def unavailable() -> bool:
        return await outcome(verifier, token) == "unavailable"

    await eventually(unavailable, 20)


async def test_an_issuer_that_never_answered_makes_nobody_wrong(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    token = provider.token()
    provider.process.kill()
    verifier = verifier_of(provider, unknown_key_pause_seconds=0.1)
    assert verifier.ages() == {"idp": None}
    assert 0 < await verifier.run_once() <= 1
    assert await outcome(verifier, token) == "unavailable"
    provider.start()
    provider.make_key("RS256", "RS256-1")
    token = provider.token()

    async def taken() -> bool:
        return await outcome(verifier, token) == "taken"

    await eventually(taken)
    age = verifier.ages()["idp"]
    assert age is not None
    assert 0 <= age < 60


async def test_a_slow_issuer_keeps_nobody_waiting_for_longer_than_the_time_limit(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said
) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    token, forged = provider.token(), provider.token(header={"kid": "forged"})
    assert await outcome(verifier, token) == "taken"
    provider.process.freeze()
    assert await outcome(verifier, token) == "taken"
    # The pause after the fetch before is not over, so that nobody is asked.
    assert await outcome(verifier, forged) == refusals.UNKNOWN_KEY
    assert await outcome(verifier_of(provider, timeout_seconds=0.5), token) == "unavailable"
    provider.process.thaw()
    [line] = said("oidc.keys_unreadable")
    assert line["error"] in {f"{provider.url}{path}: no answer within 0.5 s" for path in (KEYS, DISCOVERY)}


async def test_an_answer_that_never_ends_is_cut_off(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said
) -> None:
    provider.behave(KEYS, headers={"content-length": "1000000"}, body="{")
    assert await outcome(verifier_of(provider, timeout_seconds=0.5), provider.token()) == "unavailable"
    [line] = said("oidc.keys_unreadable")
    assert line["error"] in {f"{provider.url}{path}: no answer within 0.5 s" for path in (KEYS, DISCOVERY)}


async def test_one_issuer_that_is_away_does_not_hold_up_another(
    make_provider: MakeProvider, verifier_of: MakeVerifier
) -> None:
    away, here = make_provider("EdDSA"), make_provider("EdDSA")
    lost = away.token("EdDSA")
    away.process.kill()
    verifier = verifier_of(settings_of(away, name="away"), settings_of(here, name="here"))
    await verifier.run_once()
    assert await outcome(verifier, here.token("EdDSA")) == "taken"
    assert await outcome(verifier, lost) == "unavailable"
    assert verifier.ages()["away"] is None
    assert verifier.ages()["here"] is not None


@pytest.mark.parametrize(
    ("path", "behaviour", "told"),
    [
        (KEYS, {"status": 500}, "answers 500"),
        (KEYS, {"status": 302, "headers": {"location": "http://127.0.0.1:1/keys"}}, "leads elsewhere"),
        (KEYS, {"body": "no json"}, "not JSON"),
        (KEYS, {"body": "[" * 100_000}, "not JSON"),
        (KEYS, {"body": "[]"}, "no JSON Web Key Set"),
        (KEYS, {"body": "{}"}, "no JSON Web Key Set"),
        (KEYS, {"body": json.dumps({"keys": [{}] * 101})}, "more than 100 keys"),
        (KEYS, {"body": " " * 300_000}, "more than 256 KiB"),
        (KEYS, {"headers": {"content-encoding": "gzip"}}, "compressed"),
        (DISCOVERY, {"status": 404}, "answers 404"),
        (DISCOVERY, {"body": "5"}, "no JSON object"),
        (DISCOVERY, {"body": "[" * 100_000}, "no JSON object"),
        (DISCOVERY, {"body": "{}"}, "of another issuer"),
        (DISCOVERY, {"body": '{"issuer": "http://127.0.0.1"}'}, "of another issuer"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_once_and_is_no_refusal(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said, path: str, behaviour: dict[str, Any], told: str
) -> None:
    provider.behave(path, **behaviour)
    verifier = verifier_of(provider)
    assert await outcome(verifier, provider.token()) == "unavailable"
    assert await outcome(verifier, provider.token()) == "unavailable"
    [line] = said("oidc.keys_unreadable")
    assert told in line["error"]
    assert line["issuer"] == "idp"


@pytest.mark.parametrize(
    ("jwks_uri", "told"),
    [
        (None, "jwks_uri is missing"),
        ("file:///etc/passwd", "must be a URL that begins with https://"),
        ("http://10.0.0.1/keys", "must begin with https://"),
        ("http://user:pw@127.0.0.1/keys", "without user, password and fragment"),
    ],
)
async def test_discovery_does_not_lead_to_unsafe_places(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said, jwks_uri: str | None, told: str
) -> None:
    provider.behave(DISCOVERY, body=json.dumps({"issuer": provider.url, "jwks_uri": jwks_uri}))
    assert await outcome(verifier_of(provider), provider.token()) == "unavailable"
    [line] = said("oidc.keys_unreadable")
    assert told in line["error"]


async def test_keys_that_moved_are_found_with_the_next_look(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, refresh_seconds=0.05)
    assert await outcome(verifier, provider.token()) == "taken"
    keys = json.dumps({"keys": []})
    provider.behave("/moved", body=keys)
    provider.behave(DISCOVERY, body=json.dumps({"issuer": provider.url, "jwks_uri": f"{provider.url}/moved"}))

    async def asked() -> int:
        await verifier.run_once()
        return provider.fetches("/moved")

    await eventually(asked)


async def test_a_given_address_of_the_keys_needs_no_discovery(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    provider.behave(DISCOVERY, status=404)
    assert await outcome(verifier_of(provider, jwks_url=provider.url + KEYS), provider.token()) == "taken"
    assert provider.fetches(DISCOVERY) == 0


async def test_a_proxy_of_the_environment_is_not_asked(
    provider: IdentityProvider, verifier_of: MakeVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await outcome(verifier_of(provider), provider.token()) == "taken"


async def test_an_issuer_is_believed_only_with_a_certificate_of_a_known_authority(
    processes: Processes, free_port: Callable[[], int], verifier_of: MakeVerifier, said: Said, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    pair = authority.server()
    provider = IdentityProvider(processes, free_port(), ("EdDSA",), (str(pair.certificate), str(pair.key)))
    token = provider.token("EdDSA")
    assert await outcome(verifier_of(provider, ca_file=str(authority.file)), token) == "taken"
    assert await outcome(verifier_of(provider, ca_file=str(stranger.file)), token) == "unavailable"
    assert await outcome(verifier_of(provider), token) == "unavailable"
    told = [line["error"] for line in said("oidc.keys_unreadable")]
    assert len(told) == 2
    assert all("CERTIFICATE_VERIFY_FAILED" in each for each in told)


async def test_an_issuer_with_tls_does_not_lead_to_keys_without(
    processes: Processes, free_port: Callable[[], int], verifier_of: MakeVerifier, said: Said, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.server()
    provider = IdentityProvider(processes, free_port(), ("EdDSA",), (str(pair.certificate), str(pair.key)))
    provider.behave(DISCOVERY, body=json.dumps({"issuer": provider.url, "jwks_uri": "http://127.0.0.1:1/keys"}))
    verifier = verifier_of(provider, ca_file=str(authority.file))
    assert await outcome(verifier, provider.token("EdDSA")) == "unavailable"
    [line] = said("oidc.keys_unreadable")
    assert "jwks_uri must begin with https://" in line["error"]


async def test_closing_ends_a_fetch_under_way(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    provider.behave(KEYS, delay_seconds=5)
    verifier = verifier_of(provider)
    waiting = asyncio.ensure_future(outcome(verifier, provider.token()))
    await eventually(lambda: asyncio.to_thread(provider.fetches))
    await asyncio.wait_for(verifier.close(), 3)
    with pytest.raises(asyncio.CancelledError):
        await waiting
