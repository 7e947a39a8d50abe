"""Accept headers, as Kubernetes' own clients send them."""

import pytest

from bobrai.external_metrics import accept

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2_BETA = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (V2, "v2"),
        (f"{V2},{V2_BETA},application/json", "v2"),
        (f"{V2_BETA},application/json", "v2beta1"),
        (f"application/json,{V2}", None),
        ("", None),
        ("*/*", None),
        ("application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", None),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList, application/json", None),
        ("application/json;g=meta.k8s.io;v=v1;as=Table", None),
    ],
)
def test_which_discovery_is_asked_for(header: str, version: str | None) -> None:
    assert accept.discovery_version(header) == version


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("", True),
        ("*/*", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.kubernetes.protobuf, */*", True),
        ("application/vnd.kubernetes.protobuf,application/json", True),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", False),
        ("application/vnd.kubernetes.protobuf", False),
        ("text/html", False),
    ],
)
def test_whether_plain_json_will_do(header: str, takes: bool) -> None:
    assert accept.takes_json(header) is takes
