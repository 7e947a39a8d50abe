"""TLS by values: what is mounted where, which names are verified, and how the API is spoken to then."""

import re
from typing import Any

import pytest

from tests.charts.helm import CI, CRD_APIS, Rendered, refusal, render

API = {"api": {"tls": {"secretName": "api-tls", "clientCaSecret": "clients", "clientSecret": "machine"}}}
OWN = {
    "postgresql": {"external": {"sslMode": "", "caSecret": "db-ca", "caKey": "root.pem", "clientSecret": "db-client"}},
    "rabbitmq": {"external": {"tls": True, "caSecret": "mq-ca", "clientSecret": "mq-client"}},
    "monitoring": {"exporters": {"postgresql": {"enabled": True, "existingSecret": "monitor"}}},
}
CERTIFICATES = "/etc/bobrai/certificates"


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def containers(rendered: Rendered) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each container with the spec of its pod."""
    specs = [pod.pod for pod in rendered.pods()]
    return [(one, spec) for spec in specs for one in [*spec.get("initContainers", []), *spec["containers"]]]


def files(container: dict[str, Any], spec: dict[str, Any]) -> set[str]:
    """The paths of the files that Secrets put into a container."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    found = set()
    for mount in container.get("volumeMounts", []):
        projected = volumes[mount["name"]].get("projected", {"sources": []})
        if projected["sources"]:
            assert projected["defaultMode"] == 0o440
            assert mount["readOnly"] is True
        for source in projected["sources"]:
            found |= {f"{mount['mountPath']}/{item['path']}" for item in source["secret"]["items"]}
    return found


@pytest.mark.parametrize(
    "file", ["external-values.yaml", "external-own-pooler-values.yaml", "migrations-job-values.yaml"]
)
def test_every_container_has_the_files_that_its_environment_names(file: str) -> None:
    external = {"mode": "external"}
    values = {name: {**part, **(external if name != "monitoring" else {})} for name, part in OWN.items()}
    values["postgresql"]["external"] = {**values["postgresql"]["external"], "host": "db.example.com"}
    values["rabbitmq"]["external"] = {**values["rabbitmq"]["external"], "hosts": ["mq.example.com:5671"], "tls": True}
    secrets = {"secrets": {"postgresql": {"existingSecret": "db"}, "rabbitmq": {"existingSecret": "mq"}}}
    rendered = render({**values, **API, **secrets}, files=[CI / file])
    named = 0
    for container, spec in containers(rendered):
        have = files(container, spec)
        paths = re.findall(rf"{CERTIFICATES}/[\w/.-]+", str(environment(container)) + str(container.get("args", "")))
        assert set(paths) <= have, container["name"]
        named += len(paths)
        variables = environment(container)
        if "BOBRAI_DATABASE_URL" in variables:
            assert variables["BOBRAI_DATABASE_TLS_CA"] == f"{CERTIFICATES}/database/ca.crt"
        if "BOBRAI_RABBITMQ_URL" in variables:
            assert variables["BOBRAI_RABBITMQ_TLS_CA"] == f"{CERTIFICATES}/rabbitmq/ca.crt"
            assert variables["BOBRAI_RABBITMQ_URL"].startswith("amqps://")
    assert named > 20


def test_pgbouncer_verifies_the_outside_database_and_is_itself_reached_without_tls() -> None:
    rendered = render(OWN, files=[CI / "external-own-pooler-values.yaml"])
    ini = rendered.one("ConfigMap", "bobrai-pgbouncer").body["data"]["pgbouncer.ini"]
    for line in (
        "server_tls_sslmode = verify-full",
        f"server_tls_ca_file = {CERTIFICATES}/database/ca.crt",
        f"server_tls_cert_file = {CERTIFICATES}/database/tls.crt",
        f"server_tls_key_file = {CERTIFICATES}/database/tls.key",
    ):
        assert f"{line}\n" in ini
    [container] = rendered.one("Deployment", "bobrai-pgbouncer").pod["containers"]
    assert {f"{CERTIFICATES}/database/{name}" for name in ("ca.crt", "tls.crt", "tls.key")} <= files(
        container, rendered.one("Deployment", "bobrai-pgbouncer").pod
    )
    variables = environment(rendered.one("Deployment", "bobrai-dispatcher").pod["containers"][0])
    assert variables["BOBRAI_DATABASE_URL"].endswith("?sslmode=disable")
    assert variables["BOBRAI_DATABASE_DIRECT_URL"].endswith("?sslmode=verify-full")
    source = environment(rendered.one("Deployment", "bobrai-postgresql-exporter").pod["containers"][0])
    assert f"sslmode=verify-full&sslrootcert={CERTIFICATES}/database/ca.crt&" in source["DATA_SOURCE_URI"]


def test_an_api_under_tls_is_probed_served_scraped_and_tried_over_https() -> None:
    rendered = render(API)
    deployment = rendered.one("Deployment", "bobrai-api")
    [api] = deployment.pod["containers"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert (api[probe]["httpGet"]["scheme"], api[probe]["httpGet"]["port"]) == ("HTTPS", "https")
    assert [port["name"] for port in api["ports"]] == ["https"]
    assert environment(api)["BOBRAI_API_TLS_CLIENT_CERTIFICATES"] == "required"
    assert deployment.pod_metadata["annotations"]["prometheus.io/scheme"] == "https"
    [port] = rendered.one("Service", "bobrai-api").spec["ports"]
    assert (port["name"], port["targetPort"], port["appProtocol"]) == ("https", "https", "https")
    [smoke] = rendered.one("Pod", "bobrai-smoke").pod["containers"]
    assert smoke["args"][1] == "https://bobrai-api:8001"
    assert f"--cacert={CERTIFICATES}/api/ca.crt" in smoke["args"]


def test_prometheus_knows_the_name_and_the_authority_of_the_api() -> None:
    rendered = render({**API, "monitoring": {"scrape": "operator"}}, api_versions=CRD_APIS)
    [endpoint] = rendered.one("PodMonitor", "bobrai-api").spec["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["scheme"]) == ("https", "https")
    assert endpoint["tlsConfig"] == {
        "serverName": "bobrai-api.bobrai.svc",
        "ca": {"secret": {"name": "api-tls", "key": "ca.crt"}},
        "cert": {"secret": {"name": "machine", "key": "tls.crt"}},
        "keySecret": {"name": "machine", "key": "tls.key"},
    }


def test_keda_and_an_ingress_find_the_api_under_tls() -> None:
    optional = {
        "api": {"tls": {"secretName": "api-tls", "clientCaSecret": "clients", "clientCertificates": "optional"}}
    }
    rendered = render(
        {**optional, "autoscaling": {"provider": "keda"}},
        files=[CI / "ingress-values.yaml"],
        api_versions=CRD_APIS,
    )
    [trigger] = rendered.one("ScaledObject", "bobrai-worker-default").spec["triggers"]
    assert trigger["metadata"]["url"].startswith("https://bobrai-api.bobrai.svc:8001/")
    for rule in rendered.one("Ingress", "bobrai-api").spec["rules"]:
        for path in rule["http"]["paths"]:
            assert path["backend"]["service"]["port"] == {"name": "https"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"api": {"tls": {"clientCaSecret": "clients"}}}, "need api.tls.secretName"),
        ({"postgresql": {"external": {"clientSecret": "x"}}}, "postgresql.external.clientSecret needs caSecret"),
        ({**API, "autoscaling": {"provider": "keda"}}, "api.tls.clientCertificates=optional"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    assert words in refusal(values, api_versions=CRD_APIS)


def test_wishes_of_external_servers_that_contradict_each_other_are_refused() -> None:
    weak = {"postgresql": {"external": {"sslMode": "require", "caSecret": "db-ca"}}}
    assert "means sslMode verify-full, and not require" in refusal(weak, files=[CI / "external-values.yaml"])
    plain = {"rabbitmq": {"external": {"tls": False, "caSecret": "mq-ca"}}}
    assert "needs rabbitmq.external.tls=true" in refusal(plain, files=[CI / "external-values.yaml"])
