"""Where the Kubernetes API is: a setting, or what Kubernetes tells every pod, or its name."""

import pytest

from bobrai.settings import ExternalMetricsSettings


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "https://kubernetes.default.svc:443"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.96.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "BOBRAI_EXTERNAL_METRICS_KUBERNETES_URL": "https://other:1"},
            "https://other:1",
        ),
    ],
)
def test_the_api_is_where_the_pod_is_told(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "BOBRAI_EXTERNAL_METRICS_KUBERNETES_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ExternalMetricsSettings().api_server() == url
