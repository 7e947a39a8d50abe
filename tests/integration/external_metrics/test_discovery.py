"""What Kubernetes reads before it asks for values: discovery in both forms, OpenAPI in both versions, the probes."""

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.external_metrics.certificates import Authority, Pair, client_context
from tests.integration.external_metrics.conftest import BASE, SERVICE, SPEAKER, Service

GROUP = "external.metrics.k8s.io"
VERSION = {"groupVersion": f"{GROUP}/v1beta1", "version": "v1beta1"}
# The headers of the API server's own readers.
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
AGGREGATOR = {"X-Remote-User": "system:kube-aggregator", "X-Remote-Group": "system:masters"}


async def test_the_availability_check_finds_the_resource_five_times_at_once(service: Service, proxy_pair: Pair) -> None:
    """The API server asks so, without an Accept header, under the Service's name; any failure hides the whole API."""
    client = await service.client(proxy_pair, AGGREGATOR)
    del client.headers["accept"]
    answers = await asyncio.gather(*(client.get(BASE, extensions={"sni_hostname": SERVICE}) for _ in range(5)))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json() == {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{GROUP}/v1beta1",
            "resources": [
                {
                    "name": "bobrai_backlog",
                    "singularName": "",
                    "namespaced": True,
                    "kind": "ExternalMetricValueList",
                    "verbs": ["get"],
                }
            ],
        }


async def test_aggregated_discovery_has_everything_in_one_document(proxy: httpx.AsyncClient) -> None:
    answer = await proxy.get("/apis", headers={"Accept": AGGREGATED})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == AGGREGATED
    (group,) = answer.json()["items"]
    assert answer.json()["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert group["metadata"]["name"] == GROUP
    (version,) = group["versions"]
    (resource,) = version["resources"]
    assert (version["version"], version["freshness"]) == ("v1beta1", "Current")
    assert (resource["resource"], resource["scope"], resource["verbs"]) == ("bobrai_backlog", "Namespaced", ["get"])
    assert resource["responseKind"] == {"group": GROUP, "version": "v1beta1", "kind": "ExternalMetricValueList"}

    again = await proxy.get("/apis", headers={"Accept": AGGREGATED, "If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_older_form_of_aggregated_discovery_is_answered(proxy: httpx.AsyncClient) -> None:
    answer = await proxy.get("/apis", headers={"Accept": AGGREGATED.replace("v=v2", "v=v2beta1")})
    assert answer.headers["content-type"] == AGGREGATED.replace("v=v2", "v=v2beta1")
    assert answer.json()["apiVersion"] == "apidiscovery.k8s.io/v2beta1"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_plain_discovery_names_the_group_and_its_version(proxy: httpx.AsyncClient, slash: str) -> None:
    own = {"name": GROUP, "versions": [VERSION], "preferredVersion": VERSION}
    listed = await proxy.get(f"/apis{slash}", headers={"Accept": "application/json"})
    assert listed.json() == {"kind": "APIGroupList", "apiVersion": "v1", "groups": [own]}
    alone = await proxy.get(f"/apis/{GROUP}{slash}", headers={"Accept": "application/vnd.kubernetes.protobuf, */*"})
    assert alone.json() == {"kind": "APIGroup", "apiVersion": "v1", **own}
    assert listed.headers["content-type"] == alone.headers["content-type"] == "application/json"


def references(node: Any) -> Iterator[str]:
    """Every $ref in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


async def test_openapi_2_is_whole_and_below_the_path_that_is_merged(proxy: httpx.AsyncClient) -> None:
    answer = await proxy.get("/openapi/v2", headers={"Accept": "application/json"})
    document = answer.json()
    assert (answer.status_code, document["swagger"]) == (200, "2.0")
    assert list(document["paths"]) == [f"{BASE}/namespaces/{{namespace}}/bobrai_backlog"]
    assert [resolve(document, reference) for reference in references(document)]
    again = await proxy.get("/openapi/v2", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_openapi_3_is_found_through_its_index(proxy: httpx.AsyncClient) -> None:
    index = (await proxy.get("/openapi/v3")).json()
    assert list(index["paths"]) == [f"apis/{GROUP}/v1beta1"]
    address = index["paths"][f"apis/{GROUP}/v1beta1"]["serverRelativeURL"]
    document = (await proxy.get(address)).json()
    assert document["openapi"].startswith("3.0")
    assert list(document["paths"]) == [f"{BASE}/namespaces/{{namespace}}/bobrai_backlog"]
    assert [resolve(document, reference) for reference in references(document)]


async def test_the_version_is_given_in_kubernetes_words(proxy: httpx.AsyncClient) -> None:
    assert {"major", "minor", "gitVersion", "platform"} <= set((await proxy.get("/version")).json())


@pytest.mark.parametrize("path", ["/", "/api", "/metrics", f"{BASE}/bobrai_backlog", "/apis/other/v1", "/livez/ping"])
async def test_nothing_else_is_served(proxy: httpx.AsyncClient, path: str) -> None:
    answer = await proxy.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/apis", f"{BASE}/namespaces/shop/bobrai_backlog"])
async def test_nothing_can_be_written(proxy: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await proxy.request(method, path, content=b"{}")
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")


@pytest.mark.parametrize("path", ["/apis", BASE, "/openapi/v2", f"{BASE}/namespaces/shop/bobrai_backlog"])
async def test_who_takes_only_protobuf_is_told_so(proxy: httpx.AsyncClient, path: str) -> None:
    answer = await proxy.get(path, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert (answer.status_code, answer.json()["reason"]) == (406, "NotAcceptable")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
async def test_probes_need_no_certificate(service: Service, path: str) -> None:
    """As the kubelet asks: by address, without verifying us, with nothing to show."""
    context = client_context_of_the_kubelet()
    async with httpx.AsyncClient(verify=context, trust_env=False) as kubelet:
        answer = await kubelet.get(f"https://{service.settings.external_metrics.bind}{path}")
    assert (answer.status_code, answer.text) == (200, "ok")


def client_context_of_the_kubelet() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_the_plain_port_has_probes_and_metrics(service: Service, proxy: httpx.AsyncClient) -> None:
    await proxy.get(BASE)
    async with httpx.AsyncClient(base_url=f"http://{service.settings.external_metrics.health_bind}") as plain:
        assert (await plain.get("/livez")).status_code == (await plain.get("/readyz")).status_code == 200
        exposition = (await plain.get("/metrics")).text
        assert (await plain.get(BASE, headers=SPEAKER)).status_code == 404
    assert f'bobrai_external_metrics_requests_total{{route="{BASE}",status="200"}}' in exposition


async def test_older_versions_of_tls_are_refused(
    service: Service, server_authority: Authority, proxy_pair: Pair
) -> None:
    """Their sessions can be resumed, and would outlive the authority that they were verified by."""
    context = client_context(server_authority, proxy_pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://{service.settings.external_metrics.bind}/livez")
