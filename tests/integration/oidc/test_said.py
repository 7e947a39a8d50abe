"""What is said of keys that cannot be read or used, so that somebody can mend it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bobrai.access.oidc import OidcVerifier
from bobrai.domain.errors import ConfigurationError
from bobrai.telemetry import masking
from tests.integration.external_metrics.certificates import Authority
from tests.integration.oidc.conftest import MakeProvider, MakeVerifier, settings_of
from tests.integration.oidc.test_keys import Said, outcome, said
from tests.support.identity_provider import DISCOVERY, KEYS, IdentityProvider

__all__ = ["said"]


async def test_it_is_said_why_none_of_an_issuers_keys_can_be_used(
    make_provider: MakeProvider, verifier_of: MakeVerifier, said: Said
) -> None:
    provider = make_provider("EdDSA")
    provider.withdraw(provider.key_ids["EdDSA"])
    for fields in ({"alg": "PS256"}, {"alg": "PS256"}, {"use": "enc"}, {"d": "AQAB"}, {"n": 5}, {"kty": "oct"}):
        provider.make_key("RS256", **fields)
    provider.make_key("RS256-1024", alg="RS256")
    provider.make_key("ES256")
    verifier = verifier_of(provider, algorithms=["RS256"])
    await verifier.run_once()
    [line] = said("oidc.keys_unusable")
    assert line["algorithms"] == ["RS256"]
    assert line["left_out"].split(", ", 6) == [
        "2 for PS256", "1 for something else than signatures", "1 published with its private half", "1 malformed",
        "1 of another kind (oct)", "1 RSA of 1024 bits", "1 for ES256, which the settings do not allow",
    ]  # fmt: skip
    provider.make_key("RS256")
    assert await outcome(verifier, provider.token("RS256", kid=provider.make_key("RS256"))) == "taken"
    assert verifier.usable() == {"idp": 2}


async def test_a_file_of_authorities_that_is_not_there_is_named(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said, tmp_path: Path
) -> None:
    authorities = Authority(tmp_path, "authority").file
    verifier = verifier_of(provider, ca_file=str(authorities))
    authorities.unlink()
    assert await outcome(verifier, provider.token()) == "unavailable"
    [line] = said("oidc.keys_unreadable")
    assert f"ca_file '{authorities}'" in line["error"]
    assert "No such file" in line["error"]


@pytest.mark.parametrize(("text", "told"), [(None, "No such file"), ("", "no certificate"), ("x", "no certificate")])
def test_no_verifier_begins_with_a_file_of_authorities_that_it_cannot_use(
    provider: IdentityProvider, tmp_path: Path, text: str | None, told: str
) -> None:
    file = tmp_path / "ca.crt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=told) as caught:
        OidcVerifier([settings_of(provider, ca_file=str(file))])
    assert str(file) in masking.mask(str(caught.value))


async def test_what_cannot_be_read_is_named(
    provider: IdentityProvider, verifier_of: MakeVerifier, said: Said, free_port: Callable[[], int]
) -> None:
    await verifier_of(provider, jwks_url=f"http://127.0.0.1:{free_port()}/gone").run_once()
    await verifier_of(provider, jwks_url=provider.url.replace("http", "https") + KEYS).run_once()
    provider.behave(KEYS, body="no json")
    await verifier_of(provider).run_once()
    provider.process.kill()
    await verifier_of(provider).run_once()
    told = [line["error"] for line in said("oidc.keys_unreadable")]
    wanted = ["/gone: ", f"{KEYS}: ", f"{provider.url}{KEYS}: its keys are not JSON", f"{provider.url}{DISCOVERY}: "]
    assert all(part in each for part, each in zip(wanted, told, strict=True)), told
