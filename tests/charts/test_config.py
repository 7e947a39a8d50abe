"""`config` and `extraEnv`: Helm refuses what is no setting, and a value that the service would not start with."""

from typing import Any

import pytest

from bobrai import settings
from bobrai.domain.errors import ConfigurationError
from tests.charts.helm import HelmError, refusal, render

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


VALUES: list[tuple[str, list[Any]]] = [
    ("BOBRAI_LOG_LEVEL", ["debug", "Debug", "loud", ""]),
    ("BOBRAI_API_MAX_BACKLOG", [1, 0, -1, 1_000_000, 50_000_000, 1.5]),
    ("BOBRAI_API_MAX_BACKLOG", ["7", " 7 ", "1_000", "7.0", "+7", "0", "many", "", "1e3"]),
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
        render({"extraEnv": [given], "config": {"BOBRAI_HANDLERS": 7, "BOBRAI_API_TRUSTED_PROXIES": "10.0.0.0/8"}})
    except HelmError as error:
        pytest.fail(str(error))
