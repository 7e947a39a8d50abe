"""PostgreSQL, PgBouncer and RabbitMQ as their makers advise: probes, volumes, order of start, time to stop, memory."""

import re

import pytest

from bobrai import settings
from tests.charts.helm import CI, Rendered, refusal, render
from tests.charts.quantities import quantity
from tests.charts.test_life import environment


@pytest.fixture
def bundled() -> Rendered:
    return render()


# --- RabbitMQ ----------------------------------------------------------------------------------------------------


def test_rabbitmq_is_ready_when_its_port_answers_and_is_never_killed_by_a_probe(bundled: Rendered) -> None:
    container = bundled.one("StatefulSet", "bobrai-rabbitmq").container("rabbitmq")
    assert container["readinessProbe"]["tcpSocket"] == {"port": "amqp"}
    assert "livenessProbe" not in container


def test_rabbitmq_has_started_when_all_nodes_have_met(bundled: Rendered) -> None:
    probe = bundled.one("StatefulSet", "bobrai-rabbitmq").container("rabbitmq")["startupProbe"]
    assert probe["httpGet"] == {"path": "/api/health/checks/reached-target-cluster-size", "port": "management"}
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_rabbitmq_nodes_start_together_and_find_each_other_before_they_are_ready(bundled: Rendered) -> None:
    spec = bundled.one("StatefulSet", "bobrai-rabbitmq").spec
    assert spec["podManagementPolicy"] == "Parallel"
    assert bundled.one("Service", spec["serviceName"]).spec["publishNotReadyAddresses"] is True


def test_rabbitmq_stops_within_a_bounded_time_and_that_time_is_granted(bundled: Rendered) -> None:
    stateful_set = bundled.one("StatefulSet", "bobrai-rabbitmq")
    found = environment(stateful_set.container("rabbitmq"))
    needed = int(found["QUORUM_WAIT_SECONDS"] or 0) + int(found["DRAIN_SECONDS"] or 0)
    assert needed < stateful_set.pod["terminationGracePeriodSeconds"] <= 240


@pytest.mark.parametrize("memory", ["600Mi", "768Mi", "2Gi", "16Gi"])
def test_rabbitmq_blocks_publishers_before_it_runs_out_of_memory(memory: str) -> None:
    resources = {"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}}
    rendered = render({"rabbitmq": {"resources": resources}})
    text = "\n".join(rendered.one("ConfigMap", "bobrai-rabbitmq-config").body["data"].values())
    mark = re.search(r"vm_memory_high_watermark.absolute = (\d+)MiB", text)
    assert mark is not None
    assert "vm_memory_high_watermark.relative" not in text
    assert 0 < int(mark[1]) * 2**20 < 0.8 * quantity(memory)


def test_rabbitmq_with_too_little_memory_for_its_log_is_refused() -> None:
    resources = {"requests": {"cpu": "1", "memory": "200Mi"}, "limits": {"memory": "200Mi"}}
    assert "raftLogMebibytes" in refusal({"rabbitmq": {"resources": resources}})


def test_two_rabbitmq_nodes_which_stop_when_either_is_away_are_refused() -> None:
    assert "rabbitmq.replicas" in refusal({"rabbitmq": {"replicas": 2}})


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def test_postgresql_18_keeps_its_data_where_its_image_expects_the_volume(bundled: Rendered) -> None:
    container = bundled.one("StatefulSet", "bobrai-postgresql").container("postgresql")
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "data"]
    assert mount["mountPath"] == "/var/lib/postgresql"
    assert "subPath" not in mount
    assert str(environment(container)["PGDATA"]).startswith("/var/lib/postgresql/18/")


def test_postgresql_is_asked_over_tcp_where_nothing_answers_during_initialisation(bundled: Rendered) -> None:
    container = bundled.one("StatefulSet", "bobrai-postgresql").container("postgresql")
    for probe in ("startupProbe", "readinessProbe"):
        command = container[probe]["exec"]["command"]
        assert command[0] == "pg_isready"
        assert "--host=127.0.0.1" in command


def test_a_long_recovery_is_not_killed(bundled: Rendered) -> None:
    stateful_set = bundled.one("StatefulSet", "bobrai-postgresql")
    probe = stateful_set.container("postgresql")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600
    assert "livenessProbe" not in stateful_set.container("postgresql")
    assert stateful_set.pod["terminationGracePeriodSeconds"] >= 120


def test_postgresql_has_shared_memory_of_its_own(bundled: Rendered) -> None:
    stateful_set = bundled.one("StatefulSet", "bobrai-postgresql")
    (volume,) = [volume for volume in stateful_set.pod["volumes"] if volume["name"] == "shm"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in stateful_set.container("postgresql")["volumeMounts"]


@pytest.mark.parametrize("name", ["bobrai-postgresql", "bobrai-rabbitmq"])
def test_servers_with_data_are_never_the_first_to_be_evicted_for_memory(bundled: Rendered, name: str) -> None:
    for container in bundled.one("StatefulSet", name).pod["containers"]:
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]


@pytest.mark.parametrize("name", ["bobrai-postgresql", "bobrai-rabbitmq"])
def test_volumes_outlive_the_release_by_default(bundled: Rendered, name: str) -> None:
    policy = bundled.one("StatefulSet", name).spec["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_no_storage_class_is_named_unless_wished(bundled: Rendered) -> None:
    wished = render({name: {"storage": {"className": "fast"}} for name in ("postgresql", "rabbitmq", "backup")})
    for rendered, class_name in ((bundled, None), (wished, "fast")):
        claims = [claim for item in rendered.all("StatefulSet") for claim in item.spec["volumeClaimTemplates"]]
        claims += [claim.body for claim in rendered.all("PersistentVolumeClaim")]
        assert {claim["spec"].get("storageClassName") for claim in claims} == {class_name}


# --- PgBouncer ---------------------------------------------------------------------------------------------------


def test_pgbouncer_outlives_an_outage_of_postgresql(bundled: Rendered) -> None:
    container = bundled.one("Deployment", "bobrai-pgbouncer").container("pgbouncer")
    assert container["readinessProbe"]["tcpSocket"] == {"port": "pgbouncer"}


def test_pgbouncer_leaves_its_service_first_and_then_waits_for_clients(bundled: Rendered) -> None:
    deployment = bundled.one("Deployment", "bobrai-pgbouncer")
    pause = deployment.container("pgbouncer")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5
    assert deployment.pod["terminationGracePeriodSeconds"] >= pause + 60
    assert deployment.spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def _pgbouncer_setting(rendered: Rendered, name: str) -> str:
    text = "\n".join(rendered.one("ConfigMap", "bobrai-pgbouncer").body["data"].values())
    found = re.search(rf"^\s*{name} = (.*)$", text, flags=re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_pgbouncer_pools_transactions_and_follows_prepared_statements(bundled: Rendered) -> None:
    assert _pgbouncer_setting(bundled, "pool_mode") == "transaction"
    assert int(_pgbouncer_setting(bundled, "max_prepared_statements")) >= 100


def test_all_pods_at_their_most_find_a_place_at_one_pgbouncer(bundled: Rendered) -> None:
    """Also when all but one PgBouncer are away, every process has its whole pool."""
    most = {
        scaler.spec["scaleTargetRef"]["name"]: scaler.spec["maxReplicas"]
        for scaler in bundled.all("HorizontalPodAutoscaler")
    }
    pool = int(settings.variables()["BOBRAI_DATABASE_POOL_SIZE"][0])
    clients = sum(
        pool * most.get(item.name, item.spec.get("replicas", 1))
        for item in bundled.all("Deployment")
        if "BOBRAI_DATABASE_URL" in environment(item.pod["containers"][0])
    )
    assert clients <= int(_pgbouncer_setting(bundled, "max_client_conn"))


@pytest.mark.parametrize("part", ["postgresql", "rabbitmq"])
def test_what_runs_elsewhere_is_not_run_here(part: str) -> None:
    rendered = render(files=[CI / "external-values.yaml"])
    assert [item.name for item in rendered if part in item.name] == []
