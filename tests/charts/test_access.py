"""Who may use the API that the chart installs: nobody without a key, unless the values say so, and mean it."""

import json
import re
from typing import Any

import pytest

from bobrai.access import secrets
from bobrai.settings import load
from tests.charts.helm import CI, CRD_APIS, HelmError, Rendered, notes, refusal, render
from tests.charts.test_life import environment
from tests.charts.test_secrets import _secrets

ANONYMOUS = {"auth": {"anonymous": {"scopes": ["tasks:submit", "tasks:read"]}}}
MEANT = {"auth": {"anonymous": {"scopes": ["tasks:submit", "tasks:read"], "exposed": True}}}
INGRESS = {"ingress": {"enabled": True, "hosts": ["tasks.example.com"]}}
ROUTE = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}
BALANCER = {"api": {"service": {"type": "LoadBalancer"}}}


def _api(rendered: Rendered) -> dict[str, Any]:
    return environment(rendered.one("Deployment", "bobrai-api").container("api"))


def _settings(rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the API makes of its environment."""
    for name, value in _api(rendered).items():
        if name.startswith("BOBRAI_AUTH_"):
            monkeypatch.setenv(name, value)
    return load().auth


def test_a_credential_is_required_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = _settings(render(), monkeypatch)
    assert auth.anonymous("0.0.0.0:8001") == frozenset()
    assert {key.name: key.scopes for key in auth.keys} == {
        "chart admin": ("admin",),
        "chart smoke": ("tasks:submit", "tasks:read", "tasks:payload"),
    }


def test_the_smoke_test_has_a_key_that_reaches_its_own_tasks_of_the_built_in_types_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rendered = render()
    (key,) = [key for key in _settings(rendered, monkeypatch).keys if key.name == "chart smoke"]
    assert (key.queues, key.types, key.own_tasks) == (("default",), ("demo", "echo"), True)
    (entry,) = rendered.one("Pod", "bobrai-smoke").container("smoke")["env"]
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "bobrai-api-keys", "key": "smoke"}


def test_generated_keys_have_the_form_of_keys() -> None:
    for key in _secrets(render())["bobrai-api-keys"].values():
        shown = secrets.read(key.encode())
        assert shown is not None
        assert re.fullmatch(r"[a-z0-9]{12}", shown.key_id)
        assert len(key.rpartition("_")[2]) == secrets.SECRET_LENGTH


@pytest.mark.parametrize("way", [INGRESS, ROUTE, BALANCER], ids=["Ingress", "HTTPRoute", "LoadBalancer"])
def test_what_is_open_is_shown_to_others_only_when_that_is_meant(way: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=r"auth\.anonymous\.exposed=true"):
        render({**ANONYMOUS, **way}, api_versions=CRD_APIS)
    assert _api(render({**MEANT, **way}, api_versions=CRD_APIS))["BOBRAI_AUTH_ANONYMOUS_SCOPES"] == (
        "tasks:submit,tasks:read"
    )
    assert _api(render(way, api_versions=CRD_APIS))["BOBRAI_AUTH_ANONYMOUS_SCOPES"] == "none"


@pytest.mark.parametrize("scopes", [["admin"], ["tasks:read", "admin"]], ids=str)
def test_nobody_without_a_key_may_make_keys(scopes: list[str]) -> None:
    message = refusal({"auth": {"anonymous": {"scopes": scopes, "exposed": True}}})
    assert "auth.anonymous.scopes has admin, with which anybody could make keys" in message


def test_inside_of_the_cluster_clients_of_the_first_version_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = _settings(render(ANONYMOUS), monkeypatch)
    assert auth.anonymous("0.0.0.0:8001") == {"tasks:submit", "tasks:read"}


def test_declared_keys_rates_and_issuers_come_to_the_api_as_it_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = render(files=[CI / "access-values.yaml"])
    auth = _settings(rendered, monkeypatch)
    ci, dashboards = auth.keys[-2:]
    assert (ci.name, ci.queues, ci.own_tasks, ci.rate, ci.burst, ci.max_waiting) == (
        "ci", ("mail*",), True, "100/s", 200, 10_000,
    )  # fmt: skip
    assert dashboards.scopes == ("queues:read",)
    assert (str(auth.rate), str(auth.anonymous_rate), str(auth.refused_rate)) == ("200/s", "10/s", "20/s")
    assert [issuer.name for issuer in auth.oidc] == ["keycloak", "dex"]
    (volume,) = [each for each in rendered.one("Deployment", "bobrai-api").pod["volumes"] if each["name"] == "keys"]
    files = {
        f"/etc/bobrai/keys/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert set(files) == {key.file for key in auth.keys}
    assert files[dashboards.file] == ("bobrai-grafana", "token")
    assert files[ci.file] == ("bobrai-ci", "key")


def test_the_notes_read_the_key_and_show_it() -> None:
    text = notes()
    assert "get secret bobrai-api-keys --output jsonpath='{.data.admin}' | base64 --decode" in text
    assert 'localhost:8001/api/v1/tasks -H "Authorization: Bearer $BOBRAI_API_KEY"' in text
    assert "Every request needs a key" in text
    assert "Requests without a key may: tasks:submit, tasks:read" in notes(ANONYMOUS)


def _commands(text: str) -> list[str]:
    """What the notes say to type, in order."""
    return [
        line.strip() for line in text.splitlines() if line.startswith("     ") and not line.startswith("     pool ")
    ]


def test_the_notes_are_copied_line_by_line_and_what_goes_on_stands_before_another_terminal() -> None:
    text = notes()
    said = _commands(text)
    assert [line.split()[0] for line in said] == [
        "kubectl", "helm", "kubectl", "export", "curl", "kubectl", "kubectl",
    ]  # fmt: skip
    assert not re.search(r"--watch\b|--follow\b| -[wf] ", text), "it would never come to the next line"
    before, _, after = text.partition("port-forward service/bobrai-api 8001:8001\n")
    assert "into another terminal:\n     kubectl --namespace bobrai " in before[-120:]
    assert after.startswith("\n3. In the other terminal, ")
    assert "export BOBRAI_API_KEY=$(kubectl" in after


SERVED = {"secretName": "api-tls"}
ASKED = {**SERVED, "clientCaSecret": "clients"}


@pytest.mark.parametrize(
    ("tls", "options", "lines"),
    [
        ({**SERVED, "caKey": ""}, "", []),
        (SERVED, "--cacert bobrai-ca.crt ", ["ca.crt"]),
        ({**SERVED, "caKey": "root"}, "--cacert bobrai-ca.crt ", ["root"]),
        ({**ASKED, "clientCertificates": "optional"}, "--cacert bobrai-ca.crt ", ["ca.crt"]),
        (ASKED, "--cert CLIENT.crt --key CLIENT.key --cacert bobrai-ca.crt ", ["ca.crt"]),
        (
            {**ASKED, "clientSecret": "machine"},
            "--cert bobrai-client.crt --key bobrai-client.key --cacert bobrai-ca.crt ",
            ["ca.crt", "tls.crt", "tls.key"],
        ),
    ],
    ids=str,
)
def test_the_notes_show_the_certificates_that_the_api_asks_for(
    tls: dict[str, Any], options: str, lines: list[str]
) -> None:
    text = notes({"api": {"tls": tls}})
    at = "--resolve bobrai-api:8001:127.0.0.1 -X POST https://bobrai-api:8001/api/v1/tasks "
    assert f"     curl {options}{at}" in text
    read = re.findall(r"get secret (\S+) --output jsonpath='{\.data\.(\S+)}' \| base64 --decode > (\S+?)\)?\n", text)
    assert [key.replace("\\.", ".") for _, key, _ in read] == lines
    assert {name for _, _, name in read} == set(re.findall(r"bobrai-\w+\.(?:crt|key)", options))
    assert ("a client certificate of an authority in the Secret clients" in text) is ("CLIENT" in options)
    assert "--insecure" not in text


def test_the_api_hears_of_changes_past_the_pooler() -> None:
    assert "bobrai-postgresql." in _api(render())["BOBRAI_DATABASE_DIRECT_URL"]


def test_no_key_is_in_an_environment() -> None:
    rendered = render()
    made = _secrets(rendered)["bobrai-api-keys"].values()
    text = json.dumps([manifest.body for manifest in rendered if manifest.kind != "Secret"])
    assert not [key for key in made if key in text]
