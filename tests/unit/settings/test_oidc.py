"""One variable names the issuers, and says clearly what is wrong in it and where."""

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from bobrai.settings.group import Group
from bobrai.settings.oidc import ALGORITHMS, Issuers, IssuerSettings, fault_of_url

RIGHT: dict[str, Any] = {
    "name": "main",
    "issuer": "https://id.example/realms/shop",
    "audiences": ["bobrai"],
    "roles": [{"value": "operator", "scopes": ["queues:control"]}],
}


class Access(Group):
    """A group that holds issuers as the product's does."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_TEST_ACCESS_", frozen=True)

    oidc: Issuers = Field((), description="Issuers.")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the variable's text gives."""

    def reading(text: str) -> tuple[IssuerSettings, ...]:
        monkeypatch.setenv("BOBRAI_TEST_ACCESS_OIDC", text)
        return Access().oidc

    return reading


def told(read: Any, *issuers: object) -> str:
    """What is said of wrong issuers."""
    with pytest.raises(ValidationError) as caught:
        read(json.dumps(issuers))
    [fault] = caught.value.errors()
    return str(fault["msg"]).removeprefix("Value error, ")


def test_issuers_are_read_with_safe_defaults(read: Any) -> None:
    [issuer] = read(json.dumps([RIGHT]))
    assert (issuer.name, issuer.audiences, issuer.algorithms) == ("main", ("bobrai",), ALGORITHMS)
    assert (issuer.allow_http, issuer.default, issuer.leeway_seconds) == (False, None, 30)


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_nothing_means_no_issuer(read: Any, text: str) -> None:
    assert read(text) == ()


@pytest.mark.parametrize("text", ["{", "{}", "5", '"x"', "null", "[" * 100_000])
def test_what_is_no_array_is_told(read: Any, text: str) -> None:
    with pytest.raises(ValidationError, match="must be a JSON array of objects"):
        read(text)


@pytest.mark.parametrize(
    ("change", "told_of_it"),
    [
        ({"name": "Main"}, "issuer 1 ('Main'): name: must be 1 to 32 of a-z 0-9 . _ -"),
        ({"name": None}, "issuer 1: name: Input should be a valid string"),
        ({"audiences": []}, "issuer 1 ('main'): audiences: Array should have at least 1 item"),
        ({"audiences": "bobrai"}, "issuer 1 ('main'): audiences: Input should be an array"),
        ({"algorithms": ["HS256"]}, "issuer 1 ('main'): algorithms.0: Input should be 'RS256', 'ES256' or 'EdDSA'"),
        ({"algorithms": ["none"]}, "algorithms.0: Input should be"),
        ({"algorithms": []}, "algorithms: Array should have at least 1 item"),
        ({"issuer": "http://id.example"}, "issuer must begin with https://: whoever can change keys"),
        ({"issuer": "https://id.example/?a=b"}, "issuer must be a URL without a query"),
        ({"issuer": "https://id.example/a/.well-known/openid-configuration"}, "write 'https://id.example/a'"),
        ({"issuer": "https://id.example/.well-known/openid-configuration/"}, "write 'https://id.example'"),
        ({"default": []}, "default: Input should be an object"),
        ({"jwks_url": "http://id.example/keys"}, "jwks_url must begin with https://"),
        ({"leeway_seconds": 301}, "leeway_seconds: Input should be less than or equal to 300"),
        ({"audience": ["x"]}, "audience: is not known; known are name, issuer, audiences"),
        ({"roles": []}, "there must be roles, or a default"),
        ({"roles": [{"value": "a", "scopes": ["tasks:sumbit"]}]}, "roles.0: 'tasks:sumbit' is not a scope"),
        ({"roles": [{"value": "a", "scopes": []}]}, "roles.0: there must be a scope"),
        ({"roles": [{"value": "a", "scopes": ["admin"], "own_tasks": True}]}, "roles.0: the scope admin cannot"),
        ({"roles": [{"value": "a", "scopes": ["admin"], "queue": "x"}]}, "roles.0.queue: is not known; known are"),
        ({"roles": [{"value": "a", "scopes": ["admin"]}] * 2}, "roles: each value may stand there once"),
        ({"default": {"scopes": ["tasks:read"], "types": ["a b"]}}, "default: 'a b' is not a pattern"),
        ({"keep_keys_seconds": 60}, "keep_keys_seconds must be at least refresh_seconds"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(read: Any, change: dict[str, Any], told_of_it: str) -> None:
    assert told_of_it in told(read, RIGHT | change)


def test_everything_that_is_wrong_is_told_at_once(read: Any) -> None:
    text = told(read, RIGHT | {"audiences": []}, RIGHT | {"name": "other", "leeway_seconds": -1}, 5)
    assert "issuer 1 ('main'): audiences" in text
    assert "issuer 2 ('other'): leeway_seconds" in text
    assert "issuer 3: " in text


def test_two_issuers_are_told_apart(read: Any) -> None:
    assert told(read, RIGHT, RIGHT | {"issuer": "https://other.example"}) == "two issuers have the same name 'main'"
    assert told(read, RIGHT, RIGHT | {"name": "other"}).startswith("two issuers have the same issuer 'https://id")
    assert "at most 20 issuers" in told(read, *[RIGHT] * 21)


@pytest.mark.parametrize(
    "url",
    ["https://id.example", "https://id.example:8443/a", "http://127.0.0.1:5", "http://[::1]:5", "http://localhost"],
)
def test_addresses_that_nobody_can_change_on_the_way_are_taken(url: str) -> None:
    assert fault_of_url(url, allow_http=False) == ""


@pytest.mark.parametrize(
    "url",
    ["http://id.example", "http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.example", "https://", "ftp://x",
     "https://a b", "https://a\n", "https://u:p@id.example", "https://id.example/#x", "https://id.example:x", "//x", "",
     "https://[::1", "https://ïd.example"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    assert fault_of_url(url, allow_http=False) != ""
    assert fault_of_url("http://keycloak:8080/keys", allow_http=True) == ""
