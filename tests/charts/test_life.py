"""Pods start, stay, drain and give way as they should: probes, grace periods, budgets, spread, replicas."""

import pytest

from bobrai import settings
from tests.charts.helm import Body, Manifest, Rendered, render
from tests.charts.test_wiring import operated, selected, workloads

OWN = {"api": 8001, "dispatcher": 8002, "worker": 8003}
MARGIN_SECONDS = 5
"""What a process gets to log, close its connections and exit after its drain."""


def own_deployments(rendered: Rendered, part: str) -> list[Manifest]:
    """The Deployments of one of our processes: the API's, the dispatcher's, or every pool's."""
    return [
        item
        for item in rendered.all("Deployment")
        if item.labels["app.kubernetes.io/component"].partition("-")[0] == part
    ]


def environment(container: Body) -> dict[str, str | None]:
    """A container's variables by name; those that come from elsewhere are None."""
    return {entry["name"]: entry.get("value") for entry in container.get("env") or []}


def _setting(container: Body, name: str) -> float:
    return float(environment(container).get(name) or settings.variables()[name][0])


@pytest.mark.parametrize("part", OWN)
def test_liveness_touches_no_dependency(rendered: Rendered, part: str) -> None:
    for deployment in own_deployments(rendered, part):
        container = deployment.container(part)
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["startupProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("part", OWN)
def test_a_slow_start_is_no_reason_to_restart(rendered: Rendered, part: str) -> None:
    for deployment in own_deployments(rendered, part):
        probe = deployment.container(part)["startupProbe"]
        # a worker answers when its handlers are imported, and some of them bring large libraries
        assert probe["periodSeconds"] * probe["failureThreshold"] >= (300 if part == "worker" else 60)


@pytest.mark.parametrize("part", OWN)
def test_our_processes_listen_where_probes_and_services_look(rendered: Rendered, part: str) -> None:
    variable = {"api": "BOBRAI_API_BIND"}.get(part, f"BOBRAI_{part.upper()}_HEALTH_BIND")
    for deployment in own_deployments(rendered, part):
        container = deployment.container(part)
        assert environment(container)[variable] == f"0.0.0.0:{OWN[part]}"
        assert [port["containerPort"] for port in container["ports"]] == [OWN[part]]


@pytest.mark.parametrize("part", OWN)
def test_the_grace_period_holds_pre_stop_drain_and_a_margin(rendered: Rendered, part: str) -> None:
    for deployment in own_deployments(rendered, part):
        container = deployment.container(part)
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = _setting(container, f"BOBRAI_{part.upper()}_DRAIN_SECONDS")
        assert deployment.pod["terminationGracePeriodSeconds"] >= pause + drain + MARGIN_SECONDS, deployment


def test_the_grace_period_of_the_metrics_server_holds_its_pause_and_drain() -> None:
    deployment = render().one("Deployment", "bobrai-external-metrics")
    container = deployment.container("external-metrics")
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = _setting(container, "BOBRAI_EXTERNAL_METRICS_DRAIN_SECONDS")
    assert deployment.pod["terminationGracePeriodSeconds"] >= pause + drain + MARGIN_SECONDS


def test_the_grace_period_follows_a_longer_drain() -> None:
    values = {"workers": {"pools": {"default": {"drainSeconds": 7200}}}, "api": {"drainSeconds": 100}}
    rendered = render(values)
    assert rendered.one("Deployment", "bobrai-worker-default").pod["terminationGracePeriodSeconds"] >= 7205
    assert rendered.one("Deployment", "bobrai-api").pod["terminationGracePeriodSeconds"] >= 115


def test_the_api_leaves_the_service_before_it_stops(rendered: Rendered) -> None:
    (deployment,) = own_deployments(rendered, "api")
    assert deployment.container("api")["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


@pytest.mark.parametrize("part", OWN)
def test_a_rollout_takes_no_pod_before_its_successor_is_ready(rendered: Rendered, part: str) -> None:
    for deployment in own_deployments(rendered, part):
        assert deployment.spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, deployment


def test_our_processes_are_started_by_arguments_alone(rendered: Rendered) -> None:
    for part in OWN:
        for deployment in own_deployments(rendered, part):
            container = deployment.container(part)
            assert "command" not in container, "the image's entrypoint passes SIGTERM on to Python"
            assert container["args"][0] == part


def test_budgets_never_block_the_drain_of_a_node(rendered: Rendered) -> None:
    for budget in rendered.all("PodDisruptionBudget"):
        assert "minAvailable" not in budget.spec, budget
        assert budget.spec["maxUnavailable"] not in {0, "0%"}, budget
        assert budget.spec["unhealthyPodEvictionPolicy"] in {"AlwaysAllow", "IfHealthyBudget"}, budget


def test_sick_pods_without_data_are_evicted_and_those_with_data_are_not(rendered: Rendered) -> None:
    for budget in rendered.all("PodDisruptionBudget"):
        if budget.name in operated(rendered):
            kind = "StatefulSet" if budget.name.endswith("rabbitmq") else "Deployment"
        else:
            (workload,) = selected(rendered, budget.spec["selector"]["matchLabels"])
            kind = workload.kind
        wanted = "IfHealthyBudget" if kind == "StatefulSet" else "AlwaysAllow"
        assert budget.spec["unhealthyPodEvictionPolicy"] == wanted, budget


def test_whatever_runs_more_than_once_has_a_budget() -> None:
    rendered = render()
    covered = {
        str(pod)
        for budget in rendered.all("PodDisruptionBudget")
        for pod in selected(rendered, budget.spec["selector"]["matchLabels"])
    }
    scaled = {manifest.spec["scaleTargetRef"]["name"] for manifest in rendered.all("HorizontalPodAutoscaler")}
    several = {str(item) for item in workloads(rendered) if item.spec.get("replicas", 1) > 1 or item.name in scaled}
    assert several <= covered


def _affinity(pod: Body) -> Body:
    found: Body = pod["affinity"]["podAntiAffinity"]
    return found


def test_one_node_is_enough_unless_more_are_wished(rendered: Rendered, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.id in {"production-ha", "operators-backup"}:
        return
    for workload in workloads(rendered):
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in _affinity(workload.pod), workload


def test_hard_anti_affinity_forbids_two_on_a_node() -> None:
    rendered = render({"pod": {"antiAffinity": "hard"}})
    for workload in workloads(rendered):
        (term,) = _affinity(workload.pod)["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert selected(rendered, term["labelSelector"]["matchLabels"]) == [workload]
        # what is replaced pod by pod beside its successor needs no spare node for that
        beside = workload.kind == "Deployment"
        assert term.get("matchLabelKeys", []) == (["pod-template-hash"] if beside else [])


def test_spread_and_anti_affinity_are_about_the_pods_own_kind(rendered: Rendered) -> None:
    for workload in workloads(rendered):
        for constraint in workload.pod["topologySpreadConstraints"]:
            assert constraint["whenUnsatisfiable"] == "ScheduleAnyway", workload
            assert selected(rendered, constraint["labelSelector"]["matchLabels"]) == [workload]


def test_nobody_else_owns_the_replicas_that_an_autoscaler_sets(rendered: Rendered) -> None:
    for scaler in [*rendered.all("HorizontalPodAutoscaler"), *rendered.all("ScaledObject")]:
        deployment = rendered.one("Deployment", scaler.spec["scaleTargetRef"]["name"])
        assert "replicas" not in deployment.spec, deployment


def test_null_replicas_leave_the_number_to_kubectl_scale() -> None:
    rendered = render({"autoscaling": {"provider": "none"}})
    assert "replicas" not in rendered.one("Deployment", "bobrai-worker-default").spec
    fixed = {"api": {"autoscaling": {"enabled": False}, "replicas": None}}
    rendered = render({**fixed, "dispatcher": {"replicas": None}, "externalMetrics": {"replicas": None}})
    for part in ("api", "dispatcher", "external-metrics"):
        assert "replicas" not in rendered.one("Deployment", f"bobrai-{part}").spec


def test_zero_replicas_are_zero() -> None:
    values = {"autoscaling": {"provider": "none"}, "workers": {"pools": {"default": {"replicas": 0}}}}
    assert render(values).one("Deployment", "bobrai-worker-default").spec["replicas"] == 0


def test_waiters_never_migrate(rendered: Rendered) -> None:
    for part in OWN:
        for deployment in own_deployments(rendered, part):
            (init,) = deployment.pod["initContainers"]
            waits = init["args"] == ["migrate", "--wait"]
            assert waits or (part == "api" and init["args"] == ["migrate"]), deployment


@pytest.mark.parametrize(("mode", "migrators"), [("initContainer", 1), ("job", 1), ("none", 0)])
def test_one_thing_at_most_migrates(mode: str, migrators: int) -> None:
    rendered = render({"migrations": {"mode": mode}})
    found = [pod for pod in rendered.pods() for container in pod.containers if container.get("args") == ["migrate"]]
    assert len(found) == migrators


def test_nothing_is_a_hook_but_the_test() -> None:
    for manifest in render({"migrations": {"mode": "job"}}):
        hook = manifest.annotations.get("helm.sh/hook")
        assert hook == ("test" if manifest.kind == "Pod" else None), manifest


JOBS: Body = {"migrations": {"mode": "job"}}


def _migration(values: Body) -> str:
    return next(job.name for job in render({**JOBS, **values}).all("Job") if "-migrate-" in job.name)


@pytest.mark.parametrize(
    "values",
    [
        {"images": {"api": {"tag": "1.0.1"}}},
        {"config": {"BOBRAI_LOG_LEVEL": "debug"}},
        {"pod": {"nodeSelector": {"disk": "fast"}}},
        {"secrets": {"postgresql": {"existingSecret": "ours"}}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_migration_whose_pod_differs_is_another_job(values: Body) -> None:
    """A Job's pod cannot be changed, so an upgrade that changed it under the same name would fail."""
    assert _migration(values) != _migration({})


def test_a_migration_whose_pod_is_the_same_is_the_same_job() -> None:
    assert _migration({"api": {"maxBacklog": 7}}) == _migration({})


def test_a_finished_job_is_there_longer_than_helm_waits() -> None:
    """`helm --wait` never ends for an object that removed itself while another one was still coming up."""
    jobs = render(JOBS).all("Job")
    assert len(jobs) == 2
    for job in jobs:
        assert job.spec["ttlSecondsAfterFinished"] >= 3600, job
