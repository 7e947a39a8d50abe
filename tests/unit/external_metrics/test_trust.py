"""What the cluster's ConfigMap says about the front proxy."""

import pytest

from bobrai.domain.errors import ClusterUnavailable
from bobrai.external_metrics.front_proxy import Trust, parse

CA = "requestheader-client-ca-file"
NAMES = "requestheader-allowed-names"
USERS = "requestheader-username-headers"


def test_names_and_headers_are_lists_in_json() -> None:
    trust = parse({CA: " pem \n", NAMES: '["one", "two"]', USERS: '["X-Remote-User", "X-User"]', "client-ca-file": "x"})
    assert trust == Trust("pem", frozenset({"one", "two"}), ("X-Remote-User", "X-User"))
    assert trust.admits("two")
    assert not trust.admits("three")
    assert not trust.admits("")


@pytest.mark.parametrize("data", [{}, {NAMES: ""}, {NAMES: "[]"}, {NAMES: "null"}])
def test_without_names_every_verified_certificate_will_do(data: dict[str, str]) -> None:
    trust = parse({CA: "pem", **data})
    assert trust == Trust("pem")
    assert trust.admits("any")


def test_nobody_is_believed_before_the_cluster_has_answered() -> None:
    assert not Trust().admits("front-proxy-client")


@pytest.mark.parametrize(
    "data", [{}, {CA: " "}, {"client-ca-file": "pem"}, {CA: "pem", NAMES: "name"}, {CA: "pem", NAMES: "[1]"}]
)
def test_what_cannot_be_used_is_an_error_and_no_open_door(data: dict[str, str]) -> None:
    with pytest.raises(ClusterUnavailable, match="extension-apiserver-authentication"):
        parse(data)
