"""`config` and `extraEnv`: Helm refuses what is no setting, and a value that the service would not start with."""

from collections.abc import Callable
from typing import Any

import pytest

from bobrai import settings
from bobrai.domain.errors import ConfigurationError
from tests.charts.helm import CI, CRD_APIS, HelmError, refusal, render

ENTRY = [{"name": "BOBRAI_LOGLEVEL", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
PLACES: list[tuple[str, dict[str, Any]]] = [
    ("the chart", {"config": {"BOBRAI_LOGLEVEL": "debug"}}),
    ("the chart", {"extraEnv": ENTRY}),
    *((part, {part: {"config": {"BOBRAI_LOGLEVEL": "debug"}}}) for part in ("api", "dispatcher", "externalMetrics")),
    ("workers.defaults", {"workers": {"defaults": {"config": {"BOBRAI_LOGLEVEL": "debug"}}}}),
    ("workers.pools.media", {"workers": {"pools": {"media": {"extraEnv": ENTRY}}}}),
]


@pytest.mark.parametrize(("place", "values"), PLACES, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("major", [3, 4])
def test_a_name_that_no_setting_has_is_refused_wherever_it_stands(
    place: str, values: dict[str, Any], major: int
) -> None:
    message = refusal(values, major=major)
    assert f"BOBRAI_LOGLEVEL in the environment of {place}: bobrAI has no such setting" in message
    assert "Did you mean BOBRAI_LOG_LEVEL?" in message


def test_a_name_that_is_like_none_is_answered_with_those_that_begin_like_it() -> None:
    message = refusal({"config": {"BOBRAI_WORKER_CONCURENCY": 4}})
    assert "docs/settings.md lists all" in message
    assert "BOBRAI_WORKER_CONCURRENCY" in message
    assert "BOBRAI_API_BIND" not in message


def test_the_environment_of_handlers_and_libraries_is_nobodys_business() -> None:
    assert render({"config": {"OTEL_SERVICE_NAME": "tasks", "SHOP_URL": "https://shop.example.com"}})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BOBRAI_WORKER_QUEUES", "media", "Set the value queues"),
        ("BOBRAI_WORKER_CONCURRENCY", 5, "Set the value concurrency"),
        ("BOBRAI_WORKER_HEALTH_BIND", "0.0.0.0:1", "the chart gives pods their ports"),
        ("bobrai_log_level", "debug", "Did you mean BOBRAI_LOG_LEVEL?"),
    ],
)
def test_what_the_chart_decides_itself_is_refused_with_the_value_that_decides_it(
    name: str, value: object, said: str
) -> None:
    assert said in refusal({"workers": {"pools": {"media": {"config": {name: value}}}}})


DECIDED = {
    "BOBRAI_AUTH_ANONYMOUS_SCOPES": "auth.anonymous.scopes",
    "BOBRAI_AUTH_ANONYMOUS_RATE": "auth.anonymous.rate",
    "BOBRAI_AUTH_RATE": "auth.rate",
    "BOBRAI_AUTH_REFUSED_RATE": "auth.refusedRate",
    "BOBRAI_AUTH_KEYS": "auth.keys",
    "BOBRAI_AUTH_OIDC": "auth.oidc",
    "BOBRAI_API_TLS_CERTIFICATE": "api.tls.secretName",
    "BOBRAI_API_TLS_KEY": "api.tls.secretName",
    "BOBRAI_API_TLS_CLIENT_CA": "api.tls.clientCaSecret",
    "BOBRAI_API_TLS_CLIENT_CERTIFICATES": "api.tls.clientCertificates",
    "BOBRAI_API_MAX_BACKLOG": "api.maxBacklog",
    "BOBRAI_API_ROOT_PATH": "api.rootPath",
    "BOBRAI_API_TRUSTED_PROXIES": "api.trustedProxies",
    "BOBRAI_DATABASE_URL": "postgresql.external",
    "BOBRAI_DATABASE_DIRECT_URL": "postgresql.external",
    "BOBRAI_DATABASE_USER": "secrets.postgresql",
    "BOBRAI_DATABASE_PASSWORD": "secrets.postgresql",
    "BOBRAI_DATABASE_TLS_CA": "postgresql.external.caSecret",
    "BOBRAI_DATABASE_TLS_CERTIFICATE": "postgresql.external.clientSecret",
    "BOBRAI_DATABASE_TLS_KEY": "postgresql.external.clientSecret",
    "BOBRAI_RABBITMQ_URL": "rabbitmq.external",
    "BOBRAI_RABBITMQ_USER": "secrets.rabbitmq",
    "BOBRAI_RABBITMQ_PASSWORD": "secrets.rabbitmq",
    "BOBRAI_RABBITMQ_TLS_CA": "rabbitmq.external.caSecret",
    "BOBRAI_RABBITMQ_TLS_CERTIFICATE": "rabbitmq.external.clientSecret",
    "BOBRAI_RABBITMQ_TLS_KEY": "rabbitmq.external.clientSecret",
    "BOBRAI_EXTERNAL_METRICS_CERTIFICATE": "secrets.externalMetricsTls",
    "BOBRAI_EXTERNAL_METRICS_KEY": "secrets.externalMetricsTls",
}
"""Variables that the chart sets by values of its own, which other objects, checks or NOTES follow too."""
SECRET = {"secretKeyRef": {"name": "a", "key": "b"}}


@pytest.mark.parametrize("name", DECIDED)
def test_what_a_value_says_is_said_by_no_variable(name: str) -> None:
    message = refusal({"api": {"config": {name: "x"}}})
    assert f"{name} in the environment of api: the chart sets it by a value of its own. Set {DECIDED[name]}" in message


@pytest.mark.parametrize(
    ("place", "given"),
    [
        ("the chart", lambda name: {"config": {name: "x"}}),
        ("the chart", lambda name: {"extraEnv": [{"name": name, "value": ""}]}),
        ("api", lambda name: {"api": {"extraEnv": [{"name": name, "valueFrom": SECRET}]}}),
        ("api", lambda name: {"api": {"extraEnv": [{"name": name, "value": "$(OTHER)"}]}}),
    ],
)
@pytest.mark.parametrize("name", ["BOBRAI_AUTH_KEYS", "BOBRAI_DATABASE_URL"])
def test_nowhere_does_a_variable_say_what_a_value_says(
    name: str, place: str, given: Callable[[str], dict[str, Any]]
) -> None:
    message = refusal(given(name))
    assert (
        f"{name} in the environment of {place}: the chart sets it by a value of its own. Set {DECIDED[name]}" in message
    )


def test_every_variable_that_the_chart_sets_for_the_api_is_refused_elsewhere_but_the_form_of_its_log() -> None:
    files = [CI / f"{name}-values.yaml" for name in ("tls", "access")]
    wished = {"api": {"rootPath": "/bobrai", "trustedProxies": ["10.0.0.0/8"]}}
    for container in render(wished, files=files, api_versions=CRD_APIS).one("Deployment", "bobrai-api").containers:
        made = {entry["name"] for entry in container["env"] if entry["name"].startswith("BOBRAI_")}
        others = {"BOBRAI_LOG_FORMAT", "BOBRAI_API_BIND", "BOBRAI_API_DRAIN_SECONDS"}
        assert made - others <= set(DECIDED)
    assert {name for name in DECIDED if name.startswith(("BOBRAI_AUTH_", "BOBRAI_API_", "BOBRAI_DATABASE_"))} <= made


def test_what_no_value_says_goes_on_as_a_variable() -> None:
    wished = {"BOBRAI_API_CORS_ORIGINS": "https://a.example", "BOBRAI_AUTH_ANONYMOUS_HOSTS": "bobrai.internal"}
    listed = render({"api": {"config": wished}}).one("Deployment", "bobrai-api").container("api")["env"]
    assert {"name": "BOBRAI_AUTH_ANONYMOUS_HOSTS", "value": "bobrai.internal"} in listed


VALUES: list[tuple[str, list[Any]]] = [
    ("BOBRAI_LOG_LEVEL", ["debug", "Debug", "loud", ""]),
    ("BOBRAI_DISPATCHER_BATCH_SIZE", [1, 0, -1, 1_000_000, 50_000_000, 1.5]),
    ("BOBRAI_DISPATCHER_BATCH_SIZE", ["7", " 7 ", "1_000", "7.0", "+7", "0", "many", "", "1e3"]),
    ("BOBRAI_DISPATCHER_POLL_SECONDS", [0.5, 0.00001, 0, "0.5", ".5", "1e1", "0", "-1", "soon", "31622401", True]),
    ("BOBRAI_DISPATCHER_QUEUE_RETENTION_SECONDS", [0, -1]),
    ("BOBRAI_API_MAX_BODIES_BYTES", [25_165_824, 25_165_823]),
    ("BOBRAI_API_MAKE_QUEUES", [True, False, "true", "False", "no", 1, 0, 2, "maybe", ""]),
    ("BOBRAI_RABBITMQ_QUEUE_PREFIX", ["mine.", "Mine", ""]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES for value in values], ids=lambda value: repr(value)
)
def test_helm_takes_the_values_that_the_service_takes_and_no_others(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    monkeypatch.setenv(name, f"{value:f}" if isinstance(value, float) else text)
    try:
        settings.load()
    except ConfigurationError:
        assert f"{name} in the environment of api: must" in refusal({"api": {"config": {name: value}}})
        assert f"{name} in the environment of api: must" in refusal(
            {"api": {"extraEnv": [{"name": name, "value": text}]}}
        )
    else:
        assert render({"api": {"config": {name: value}}})


def test_a_value_that_names_another_variable_is_known_only_in_the_pod() -> None:
    given = [{"name": "LEVEL", "value": "debug"}, {"name": "BOBRAI_LOG_LEVEL", "value": "$(LEVEL)"}]
    assert render({"extraEnv": given})


def test_what_cannot_be_judged_here_is_left_to_the_service() -> None:
    given = {"name": "BOBRAI_LOG_LEVEL", "valueFrom": {"configMapKeyRef": {"name": "logs", "key": "level"}}}
    try:
        render({"extraEnv": [given], "config": {"BOBRAI_HANDLERS": 7, "BOBRAI_API_CORS_ORIGINS": "https://a.example"}})
    except HelmError as error:
        pytest.fail(str(error))
