"""The chart and the service speak of the same settings, and every process gets what it needs."""

import json
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from bobrai import settings
from tests.charts.helm import CHART, CI, CRD_APIS, Body, Rendered, render
from tests.charts.test_config import DECIDED
from tests.charts.test_life import OWN, environment, own_deployments

KNOWN = set(settings.variables())
NUMBERS = [
    "api.drainSeconds", "api.maxBacklog", "dispatcher.drainSeconds", "dispatcher.retentionSeconds",
    *(f"workers.defaults.{name}" for name in ("concurrency", "drainSeconds", "maxTasks", "maxMemoryMib")),
]  # fmt: skip
"""Values that reach a process as they are."""


def _bobrai_containers(rendered: Rendered) -> list[Body]:
    return [
        container
        for pod in rendered.pods()
        for container in pod.containers
        if any(name.startswith("BOBRAI_") for name in environment(container))
    ]


def test_every_variable_of_the_chart_is_a_setting(rendered: Rendered) -> None:
    named = {name for container in _bobrai_containers(rendered) for name in environment(container)}
    assert {name for name in named if name.startswith("BOBRAI_")} <= KNOWN


def test_every_setting_that_the_values_name_exists() -> None:
    for file in [*CI.glob("*.yaml"), CI.parent / "values.yaml", *CI.parent.glob("templates/**/*.*")]:
        named = set(re.findall(r"\bBOBRAI_[A-Z_]*[A-Z]\b", file.read_text()))
        assert named <= KNOWN, file


def test_every_setting_can_be_set_by_a_value() -> None:
    # these have values of their own, which grace periods, autoscalers, ports, mounts or checks follow too
    others = {*DECIDED, "BOBRAI_WORKER_QUEUES", "BOBRAI_WORKER_CONCURRENCY"}
    others |= {f"BOBRAI_{part.upper()}_DRAIN_SECONDS" for part in OWN}
    wanted = {
        name: default
        for name, (default, _) in settings.variables().items()
        if name not in others and not name.endswith("_BIND")
    }
    rendered = render({"config": wanted})
    for part in OWN:
        (deployment,) = own_deployments(rendered, part)
        found = environment(deployment.container(part))
        assert {name: found.get(name) for name in wanted} == wanted


def test_the_component_wins_over_the_chart_and_extra_env_over_config() -> None:
    values = {
        "config": {"BOBRAI_LOG_LEVEL": "debug", "BOBRAI_DATABASE_POOL_SIZE": 3},
        "extraEnv": [{"name": "BOBRAI_DATABASE_POOL_SIZE", "value": "4"}],
        "api": {"config": {"BOBRAI_LOG_LEVEL": "error"}},
    }
    rendered = render(values)
    api = environment(rendered.one("Deployment", "bobrai-api").container("api"))
    dispatcher = environment(rendered.one("Deployment", "bobrai-dispatcher").container("dispatcher"))
    assert (api["BOBRAI_LOG_LEVEL"], dispatcher["BOBRAI_LOG_LEVEL"]) == ("error", "debug")
    assert (api["BOBRAI_DATABASE_POOL_SIZE"], dispatcher["BOBRAI_DATABASE_POOL_SIZE"]) == ("4", "4")


def test_a_variable_may_use_those_that_stand_before_it() -> None:
    """Kubernetes puts a value in the place of $(NAME) only where NAME stands earlier in the list."""
    chart: list[Body] = [
        {"name": "Z_HOST", "value": "replica.example.com"},
        {"name": "A_READ_URL", "value": "postgresql://$(BOBRAI_DATABASE_USER)@$(Z_HOST)/bobrai"},
    ]
    own: list[Body] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOBRAI_LOG_LEVEL", "value": "info"},
        {"name": "A_NAME", "value": "$(POD_NAME) $(A_READ_URL)"},
    ]
    rendered = render({"extraEnv": chart, "api": {"extraEnv": own, "config": {"BOBRAI_LOG_LEVEL": "debug"}}})
    listed = rendered.one("Deployment", "bobrai-api").container("api")["env"]
    assert listed[-5:] == chart + own
    assert "BOBRAI_DATABASE_USER" in [entry["name"] for entry in listed[:-5]]


def test_a_variable_of_a_rabbitmq_node_can_be_replaced() -> None:
    """Two of one name are refused by server-side apply."""
    replaced = [{"name": "ERL_CRASH_DUMP_SECONDS", "value": "30"}, {"name": "TZ", "value": "UTC"}]
    listed = render({"rabbitmq": {"extraEnv": replaced}}).one("StatefulSet", "bobrai-rabbitmq").container("rabbitmq")
    assert listed["env"][-2:] == replaced
    assert [entry["name"] for entry in listed["env"]].count("ERL_CRASH_DUMP_SECONDS") == 1


def test_large_numbers_arrive_as_numbers() -> None:
    rendered = render(
        {"api": {"maxBacklog": 50_000_000}, "config": {"BOBRAI_DISPATCHER_RETENTION_SECONDS": 31_536_000}}
    )
    api = environment(rendered.one("Deployment", "bobrai-api").container("api"))
    assert api["BOBRAI_API_MAX_BACKLOG"] == "50000000"
    assert float(str(api["BOBRAI_DISPATCHER_RETENTION_SECONDS"])) == 31_536_000
    assert "e+" not in str(api["BOBRAI_DISPATCHER_RETENTION_SECONDS"])


def test_what_the_chart_sets_is_what_the_service_accepts(rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    for container in _bobrai_containers(rendered):
        with monkeypatch.context() as patch:
            for name, value in environment(container).items():
                patch.setenv(name, value if value is not None else "secret")
            settings.load()


def _least(rules: Body, path: str) -> int:
    """The least number that the values' schema takes."""
    for key in path.split("."):
        rules = rules["properties"][key]
    return int(rules["minimum"])


def test_the_least_that_a_value_may_be_is_what_the_service_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = json.loads((CHART / "values.schema.json").read_text())
    values: Body = {}
    for path in NUMBERS:
        held = values
        *parents, last = path.split(".")
        for key in parents:
            held = held.setdefault(key, {})
        held[last] = _least(rules, path)
    for container in _bobrai_containers(render(values)):
        with monkeypatch.context() as patch:
            for name, value in environment(container).items():
                patch.setenv(name, value if value is not None else "secret")
            settings.load()


# --- the ways to the database and the broker ----------------------------------------------------------------------

ROUTES = {
    "default": ("bobrai-pgbouncer.bobrai.svc:6432", "bobrai-postgresql.bobrai.svc:5432"),
    "external": ("pooler.example.com:6432", "postgresql.example.com:5432"),
    "external-own-pooler": ("bobrai-pgbouncer.bobrai.svc:6432", "postgresql.example.com:5432"),
    "operators": ("bobrai-pooler.bobrai.svc:5432", "bobrai-postgresql-rw.bobrai.svc:5432"),
}


def _address(url: str | None) -> str:
    return urlsplit(url or "").netloc


def _shape(name: str, **options: str) -> Rendered:
    return render(files=[CI / f"{name}-values.yaml"], api_versions=CRD_APIS, **options)


@pytest.mark.parametrize("shape_name", ROUTES)
def test_work_goes_through_the_pooler(shape_name: str) -> None:
    rendered = _shape(shape_name)
    for part in OWN:
        for deployment in own_deployments(rendered, part):
            url = environment(deployment.container(part))["BOBRAI_DATABASE_URL"]
            assert _address(url) == ROUTES[shape_name][0], deployment


@pytest.mark.parametrize("shape_name", ROUTES)
def test_migrations_and_listening_bypass_the_pooler(shape_name: str) -> None:
    rendered = _shape(shape_name)
    migrate = rendered.one("Deployment", "bobrai-api").container("migrate")
    dispatcher = rendered.one("Deployment", "bobrai-dispatcher").container("dispatcher")
    for container in (migrate, dispatcher):
        assert _address(environment(container)["BOBRAI_DATABASE_DIRECT_URL"]) == ROUTES[shape_name][1]


def test_without_any_pooler_all_is_direct() -> None:
    values = {"pgbouncer": {"enabled": False}}
    for shape_name in ("default", "external-own-pooler"):
        rendered = render(values, files=[CI / f"{shape_name}-values.yaml"])
        api = rendered.one("Deployment", "bobrai-api").container("api")
        assert _address(environment(api)["BOBRAI_DATABASE_URL"]) == ROUTES[shape_name][1]
        assert rendered.find("Deployment", "bobrai-pgbouncer") is None


@pytest.mark.parametrize("shape_name", ROUTES)
def test_hosts_inside_the_release_are_services_of_the_release(shape_name: str) -> None:
    rendered = _shape(shape_name)
    made = {item.name for item in rendered.all("Service")}
    made |= {item.name for item in rendered.all("Pooler")}
    made |= {f"{item.name}-rw" for item in rendered.all("Cluster")} | {i.name for i in rendered.all("RabbitmqCluster")}
    for container in _bobrai_containers(rendered):
        for name, value in environment(container).items():
            for host in re.findall(r"[@/]([a-z0-9.-]+\.svc)\b", value or ""):
                assert host.split(".")[0] in made, (name, value)


def test_only_the_dispatcher_and_workers_know_the_broker(rendered: Rendered) -> None:
    for part in OWN:
        for deployment in own_deployments(rendered, part):
            knows = "BOBRAI_RABBITMQ_URL" in environment(deployment.container(part))
            assert knows is (part != "api"), deployment


def test_every_node_of_an_external_broker_is_named() -> None:
    worker = _shape("external").one("Deployment", "bobrai-worker-default").container("worker")
    assert environment(worker)["BOBRAI_RABBITMQ_URL"] == (
        "amqps://rabbitmq-0.example.com:5671/tasks,amqps://rabbitmq-1.example.com:5671/tasks"
    )


def test_a_virtual_host_of_any_name_is_found() -> None:
    worker = render({"rabbitmq": {"vhost": "our tasks/1+1"}}).one("Deployment", "bobrai-worker-default")
    url = environment(worker.container("worker"))["BOBRAI_RABBITMQ_URL"]
    assert unquote(urlsplit(url or "").path) == "/our tasks/1+1"


def test_the_transport_security_of_an_external_database_is_passed_on() -> None:
    api = _shape("external").one("Deployment", "bobrai-api").container("api")
    assert str(environment(api)["BOBRAI_DATABASE_URL"]).endswith("/tasks?sslmode=require")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_database_is_checked_by_authorities_that_the_image_has(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int], mode: str
) -> None:
    """The driver looks for them in the home directory alone, and refuses to connect without any."""
    external = {"host": "127.0.0.1", "port": free_port(), "poolerHost": "", "sslMode": mode}
    values = {"postgresql": {"external": external}, "pgbouncer": {"enabled": False}}
    rendered = render(values, files=[CI / "external-values.yaml"])
    for container in _bobrai_containers(rendered):
        found = environment(container)
        if "BOBRAI_DATABASE_URL" not in found:
            continue
        monkeypatch.setenv("HOME", found.get("HOME") or "/tmp")
        monkeypatch.setenv("PGSSLROOTCERT", found["PGSSLROOTCERT"] or "")
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(found["BOBRAI_DATABASE_URL"], user="bobrai", timeout=5)
    assert "PGSSLROOTCERT" not in environment(_bobrai_containers(_shape("external"))[0])


@pytest.mark.parametrize("shape_name", ["default", "external", "external-own-pooler", "operators"])
def test_user_and_password_come_from_secrets(shape_name: str) -> None:
    for container in _bobrai_containers(_shape(shape_name)):
        for entry in container["env"]:
            if entry["name"].endswith(("_PASSWORD", "_USER", "_TOKEN")):
                assert "secretKeyRef" in entry["valueFrom"], entry
            assert "@" not in entry.get("value", ""), entry


def test_a_pool_reads_what_its_values_say() -> None:
    worker = _shape("several-pools").one("Deployment", "bobrai-worker-media").container("worker")
    found = environment(worker)
    assert worker["image"] == "registry.example.com/shop-media:7"
    assert found["BOBRAI_WORKER_QUEUES"] == "media,thumbnails"
    assert found["BOBRAI_HANDLERS"] == "shop.media,shop.thumbnails"
    assert found["BOBRAI_WORKER_CONCURRENCY"] == "4"
    assert found["BOBRAI_WORKER_DRAIN_SECONDS"] == "1800"
    assert found["BOBRAI_WORKER_MAX_TASKS"] == "1000"
    assert found["BOBRAI_WORKER_MAX_MEMORY_MIB"] == "1500"
    assert found["MEDIA_KEY"] is None


def test_inline_handlers_are_mounted_importable_and_loaded() -> None:
    rendered = _shape("inline-handlers")
    deployment = rendered.one("Deployment", "bobrai-worker-default")
    worker = deployment.container("worker")
    assert environment(worker)["BOBRAI_HANDLERS"] == "more_tasks,tasks"
    (mount,) = [mount for mount in worker["volumeMounts"] if mount["name"] == "handlers"]
    assert mount["mountPath"] in str(environment(worker)["PYTHONPATH"]).split(":")
    (volume,) = [volume for volume in deployment.pod["volumes"] if volume["name"] == "handlers"]
    held = rendered.one("ConfigMap", volume["configMap"]["name"]).body["data"]
    for name, text in held.items():
        compile(text, name, "exec")
    assert set(held) == {"tasks.py", "more_tasks.py"}


def test_a_root_path_is_where_routes_lead_and_what_the_api_is_told() -> None:
    values = {
        "api": {"rootPath": "/bobrai", "trustedProxies": ["10.0.0.0/8", "fd00::/8"]},
        "ingress": {"enabled": True, "hosts": ["tasks.example.com"]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    }
    rendered = render(values, api_versions=CRD_APIS)
    api = environment(rendered.one("Deployment", "bobrai-api").container("api"))
    assert api["BOBRAI_API_ROOT_PATH"] == "/bobrai"
    assert api["BOBRAI_API_TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"
    (rule,) = rendered.one("Ingress", "bobrai-api").spec["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/bobrai"]
    (rule,) = rendered.one("HTTPRoute", "bobrai-api").spec["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/bobrai"]
