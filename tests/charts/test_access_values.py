"""Helm refuses of `auth` what the service would refuse at its start, says what to change, and takes what it takes."""

import json
from typing import Any

import pytest

from bobrai import settings
from bobrai.domain.errors import ConfigurationError
from bobrai.domain.limits import KEY_NAME_PATTERN, MAX_PATTERNS, MAX_RATE
from tests.charts.helm import refusal, render

KEY: dict[str, Any] = {"name": "ci", "secretName": "bobrai-ci", "scopes": ["tasks:read"]}
ISSUER: dict[str, Any] = {
    "name": "dex",
    "issuer": "https://dex.example.com",
    "audiences": ["bobrai"],
    "default": {"scopes": ["queues:read"]},
}
Case = tuple[dict[str, Any], str]


def _without(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != name}


GRANTS: list[Case] = [
    ({"scopes": []}, "minItems"),
    ({"scopes": ["task:submit"]}, "'tasks:submit'"),
    ({"scopes": "tasks:read"}, "scopes"),
    ({"scopes": ["admin"], "queues": ["mail"]}, "the scope admin cannot be narrowed: leave queues, types and"),
    ({"scopes": ["tasks:read", "admin"], "types": ["echo"]}, "the scope admin cannot be narrowed"),
    ({"queues": ["mail queue"]}, 'queues: "mail queue" is no pattern'),
    ({"types": ["a*b*c*d*e*"]}, 'types: "a*b*c*d*e*" is no pattern'),
    ({"types": ["a", "ä"]}, 'types: "ä" is no pattern'),
    ({"types": ["a" * 101]}, "is no pattern: write 1 to 100"),
    ({"queues": [""]}, "queues"),
    ({"queues": [str(number) for number in range(MAX_PATTERNS + 1)]}, "queues"),
    ({"queues": None}, "queues"),
    ({"rate": "100"}, 'rate: "100" is no rate: write 1 to 1000000 per s, m, h or d, such as 100/s'),
    ({"rate": "0/s"}, 'rate: "0/s" is no rate'),
    ({"rate": f"{MAX_RATE + 1}/s"}, "is no rate"),
    ({"rate": "10/week"}, "is no rate"),
    ({"rate": ""}, "is no rate"),
    ({"rate": 100}, 'rate: "100" is no rate: write 1 to 1000000 per s'),
    ({"rate": 0}, 'rate: "0" is no rate'),
    ({"burst": 5}, "burst needs a rate"),
    ({"rate": None, "burst": 5}, "burst needs a rate"),
    ({"rate": "1/s", "burst": 0}, "burst"),
    ({"rate": "1/s", "burst": MAX_RATE + 1}, "burst"),
    ({"rate": "1/s", "burst": 1.5}, "burst"),
]
"""For keys, roles and defaults alike."""
RIGHT_GRANTS: list[dict[str, Any]] = [
    {"scopes": ["admin"], "queues": [], "types": []},
    {"queues": ["mail*", "*.eu", "A_b-9"], "types": ["a*b*c*d*e", "a" * 100, "*"]},
    {"rate": f"{MAX_RATE}/d", "burst": MAX_RATE},
    {"rate": " 007 / m "},
    {"rate": None, "burst": None},
]

KEYS: list[Case] = [
    *GRANTS,
    (_without(KEY, "name"), "name"),
    (_without(KEY, "secretName"), "secretName"),
    (_without(KEY, "scopes"), "scopes"),
    ({"name": ""}, "name"),
    ({"name": "é"}, '.name="é" cannot be a name: write 1 to 100 letters'),
    ({"name": "-ci"}, "cannot be a name"),
    ({"name": "c" * 101}, "cannot be a name"),
    ({"name": "chart admin"}, 'another key is called "chart admin" already, one of the chart\'s own'),
    ({"own_tasks": True}, "own_tasks"),
    ({"ownTasks": "yes please"}, "ownTasks"),
    ({"scopes": ["admin"], "ownTasks": True}, "leave queues, types and ownTasks out"),
    ({"maxWaiting": -1}, "maxWaiting"),
]
RIGHT_KEYS: list[dict[str, Any]] = [
    *RIGHT_GRANTS,
    {"name": "Team A: ci@example.com/x_1.2-3"},
    {"name": "c" * 100},
    {"ownTasks": True, "maxWaiting": 0},
]
ISSUERS: list[Case] = [
    *(({"default": {"scopes": ["tasks:read"], **wrong}}, said) for wrong, said in GRANTS),
    *(({"roles": [{"value": "a", "scopes": ["tasks:read"], **wrong}]}, said) for wrong, said in GRANTS),
    ({"default": {"scopes": ["admin"], "own_tasks": True}}, "leave queues, types and own_tasks out"),
    ({"default": {"scopes": ["tasks:read"], "max_waiting": -1}}, "max_waiting"),
    ({"default": {"scopes": ["tasks:read"], "ownTasks": True}}, "ownTasks"),
    ({"default": {}}, "scopes"),
    ({"roles": [{"scopes": ["tasks:read"]}]}, "value"),
    ({"roles": [{"value": "a", "scopes": ["tasks:read"]}] * 2}, 'roles: "a" stands there twice'),
    ({"default": None}, "every token would be refused: set roles"),
    (_without(ISSUER, "default"), "every token would be refused"),
    *((_without(ISSUER, name), name) for name in ("name", "issuer", "audiences")),
    ({"name": "Dex"}, "name"),
    ({"audiences": []}, "audiences"),
    ({"audiences": "bobrai"}, "audiences"),
    ({"algorithms": ["HS256"]}, "'RS256', 'ES256', 'EdDSA'"),
    ({"algorithms": []}, "algorithms"),
    ({"algorithms": None}, "algorithms"),
    ({"jwksUrl": "https://dex.example.com/keys"}, "jwksUrl"),
    ({"issuer": "dex.example.com"}, "must be a URL that begins with https://"),
    ({"issuer": ""}, "issuer"),
    ({"issuer": "https://"}, "must be a URL that begins with https://"),
    ({"issuer": "ftp://dex.example.com"}, "must be a URL that begins with https://"),
    ({"issuer": "https://dex.example.com/a b"}, "must be a URL that begins with https://"),
    ({"issuer": "https://dex.éxample.com"}, "must be a URL that begins with https://"),
    ({"issuer": "http://dex.example.com"}, "allow_http: true allows it"),
    ({"issuer": "http://localhost.example.com"}, "allow_http: true allows it"),
    ({"issuer": "https://user:word@dex.example.com"}, "without user, password and fragment"),
    ({"issuer": "https://dex.example.com/#a"}, "without user, password and fragment"),
    ({"issuer": "https://dex.example.com:66000"}, "a port up to 65535"),
    ({"issuer": "https://dex.example.com:port"}, "a port up to 65535"),
    ({"issuer": "https://[::1"}, "is no URL"),
    ({"issuer": "https://dex.example.com/?a=b"}, "issuer: leave the query"),
    ({"issuer": "https://dex.example.com/" + "a" * 500}, "issuer"),
    ({"jwks_url": "http://dex.example.com/keys"}, 'jwks_url: "http://dex.example.com/keys" must begin with https://'),
    ({"keep_keys_seconds": 304}, "keep_keys_seconds must be at least refresh_seconds and timeout_seconds together"),
    ({"refresh_seconds": 3600}, "keep_keys_seconds must be at least"),
    ({"leeway_seconds": 301}, "leeway_seconds"),
    ({"timeout_seconds": 0}, "timeout_seconds"),
    ({"max_lifetime_seconds": -1}, "max_lifetime_seconds"),
    ({"name_claims": [""]}, "name_claims"),
]
RIGHT_ISSUERS: list[dict[str, Any]] = [
    *({"default": {"scopes": ["tasks:read"], **right}} for right in RIGHT_GRANTS),
    {"roles": [{"value": "a", "scopes": ["admin"]}, {"value": "b", "scopes": ["tasks:read"]}], "default": None},
    {"issuer": "http://dex.example.com", "allow_http": True},
    {"issuer": "HTTP://LOCALHOST:5556/dex"},
    {"issuer": "http://127.0.0.1:5556"},
    {"issuer": "http://[::1]:5556/dex"},
    {"issuer": "https://dex.example.com:65535/realms/a~b/?"},
    {"jwks_url": "https://dex.example.com/keys?version=2"},
    {"keep_keys_seconds": 305},
    {"algorithms": ["EdDSA"], "leeway_seconds": 0, "timeout_seconds": 0.5, "name_claims": []},
]


def _service_refuses(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> bool:
    monkeypatch.setenv(f"BOBRAI_AUTH_{name}", value if isinstance(value, str) else json.dumps(value))
    try:
        settings.load()
    except ConfigurationError:
        return True
    return False


def _as_service(key: dict[str, Any]) -> dict[str, Any]:
    """A declared key as the API reads it: with a file in the place of its Secret."""
    names = {"ownTasks": "own_tasks", "maxWaiting": "max_waiting", "secretName": "file"}
    return {names.get(name, name): value for name, value in key.items() if name != "secretKey"}


def _whole(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The change alone where it is a whole one that lacks something."""
    return change if len(change) > 1 and change.items() <= base.items() else {**base, **change}


@pytest.mark.parametrize(("change", "said"), KEYS, ids=lambda value: str(value)[:50])
def test_a_key_that_the_service_would_refuse_is_refused(
    change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _whole(KEY, change)
    assert said in refusal({"auth": {"keys": [key]}})
    if "own_tasks" not in key and "cannot be a name" not in said and "already" not in said and key.get("name"):
        assert _service_refuses(monkeypatch, "KEYS", [_as_service(key)])


@pytest.mark.parametrize("change", RIGHT_KEYS, ids=lambda value: str(value)[:50])
def test_a_key_that_the_service_would_take_is_taken(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert render({"auth": {"keys": [{**KEY, **change}]}})
    assert not _service_refuses(monkeypatch, "KEYS", [_as_service({**KEY, **change})])


@pytest.mark.parametrize(("change", "said"), ISSUERS, ids=lambda value: str(value)[:60])
def test_an_issuer_that_the_service_would_refuse_is_refused(
    change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = _whole(ISSUER, change)
    assert said in refusal({"auth": {"oidc": [issuer]}})
    assert _service_refuses(monkeypatch, "OIDC", [issuer])


@pytest.mark.parametrize("change", RIGHT_ISSUERS, ids=lambda value: str(value)[:60])
def test_an_issuer_that_the_service_would_take_is_taken(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert render({"auth": {"oidc": [{**ISSUER, **change}]}})
    assert not _service_refuses(monkeypatch, "OIDC", [{**ISSUER, **change}])


RATES = {"auth.rate": "RATE", "auth.anonymous.rate": "ANONYMOUS_RATE", "auth.refusedRate": "REFUSED_RATE"}


@pytest.mark.parametrize("rate", [0, 100, "100", "10 per second", "0/s", "1000001/s", "10/s", "1000000/h", "none"])
@pytest.mark.parametrize("path", RATES)
def test_a_rate_needs_a_unit(path: str, rate: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {"auth": {"anonymous": {}}}
    held = values["auth"]["anonymous"] if "anonymous" in path else values["auth"]
    held[path.rpartition(".")[2]] = rate
    if _service_refuses(monkeypatch, RATES[path], str(rate)):
        assert f"{path}: {json.dumps(str(rate))} is no rate: write 1 to {MAX_RATE} per s, m, h or d" in refusal(values)
    else:
        assert render(values)


@pytest.mark.parametrize("scopes", [["task:submit"], ["none"], "tasks:read", [""]], ids=str)
def test_scopes_without_a_key_are_scopes(scopes: object) -> None:
    assert "scopes" in refusal({"auth": {"anonymous": {"scopes": scopes}}})


TWICE: list[tuple[dict[str, Any], str]] = [
    ({"keys": [KEY, {**KEY, "secretName": "other"}]}, 'auth.keys[1]: another key is called "ci" already'),
    ({"keys": [KEY, {**KEY, "name": "b"}]}, "auth.keys[1]: the Secret bobrai-ci holds another key's secret under key"),
    ({"keys": [KEY, {**KEY, "name": "b", "secretKey": "key"}]}, "holds another key's secret under key already"),
    ({"keys": [{**KEY, "secretName": "bobrai-api-keys", "secretKey": "admin"}]}, "under admin already"),
    ({"oidc": [ISSUER, {**ISSUER, "issuer": "https://b.example"}]}, 'another issuer has the name "dex" already'),
    ({"oidc": [ISSUER, {**ISSUER, "name": "b"}]}, 'another issuer has the issuer "https://dex.example.com" already'),
    (
        {"oidc": [{**ISSUER, "name": f"d{number}", "issuer": f"https://d{number}.example"} for number in range(21)]},
        "20",
    ),
]


@pytest.mark.parametrize(("auth", "said"), TWICE, ids=lambda value: str(value)[-60:])
def test_what_may_stand_there_once_is_refused_twice(auth: dict[str, Any], said: str) -> None:
    assert said in refusal({"auth": auth})


def test_keys_of_one_secret_under_other_names_are_two() -> None:
    assert render({"auth": {"keys": [KEY, {**KEY, "name": "b", "secretKey": "b"}]}})


@pytest.mark.parametrize("key", ["secret", "bobrai_ID_" + "a" * 43, "bobrai_id_short"])
def test_a_key_of_the_charts_own_has_the_form_of_keys(key: str) -> None:
    assert "secrets.apiKeys.admin must be bobrai_ID_SECRET" in refusal({"secrets": {"apiKeys": {"admin": key}}})


def test_the_form_of_a_name_is_the_services() -> None:
    """Templates cannot read it, so that what they hold must be changed with it."""
    assert KEY_NAME_PATTERN == "^[A-Za-z0-9][A-Za-z0-9 ._@:/-]{0,99}$"
