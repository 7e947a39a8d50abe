"""The marks by which scale-in takes idle pods first: right, written only when they change, and never many at once."""

from collections.abc import AsyncIterator, Callable

import pytest

from bobrai.domain.errors import ClusterUnavailable
from bobrai.external_metrics.deletion_cost import PATCHES_PER_ROUND, DeletionCost
from bobrai.external_metrics.kubernetes import Kubernetes
from bobrai.settings import Settings
from bobrai.store import workers
from bobrai.store.pool import Database
from tests.integration.external_metrics.certificates import Authority
from tests.integration.external_metrics.cluster import Cluster
from tests.integration.external_metrics.conftest import serving
from tests.support.eventually import eventually, stays

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"


async def busy(store: Database, host: str, running: int, *, lease_seconds: float = 600.0) -> int:
    """A worker in a pod, with so many tasks under way."""
    worker_id = await workers.register(
        store, queues=["default"], host=host, concurrency=50, lease_seconds=lease_seconds
    )
    await workers.heartbeat(store, worker_id, lease_seconds=lease_seconds, running=running)
    return worker_id


@pytest.fixture
async def kubernetes(cluster: Cluster) -> AsyncIterator[Kubernetes]:
    kubernetes = Kubernetes(cluster.url, cluster.account)
    yield kubernetes
    await kubernetes.close()


@pytest.fixture
def duty(store: Database, kubernetes: Kubernetes) -> DeletionCost:
    return DeletionCost(store, kubernetes, "shop")


async def test_busy_pods_cost_more_than_idle_ones(cluster: Cluster, store: Database, duty: DeletionCost) -> None:
    for host, running in (("idle", 0), ("one", 1), ("three", 3), ("fifty", 50)):
        cluster.pods[host] = {"own": "kept"}
        await busy(store, host, running)
    await duty.run_once()
    assert {name: annotations[ANNOTATION] for name, annotations in cluster.pods.items()} == {
        "idle": "0",
        "one": "1",
        "three": "2",
        "fifty": "6",
    }
    assert all(annotations["own"] == "kept" for annotations in cluster.pods.values())


async def test_a_pod_is_marked_only_when_its_mark_changes(
    cluster: Cluster, store: Database, duty: DeletionCost
) -> None:
    cluster.pods["pod"] = {}
    worker_id = await busy(store, "pod", 4)
    for running in (4, 4, 5, 7, 0, 0, 1):
        await workers.heartbeat(store, worker_id, lease_seconds=600.0, running=running)
        await duty.run_once()
    assert cluster.patches == [("pod", "3"), ("pod", "0"), ("pod", "1")]


async def test_all_workers_of_a_pod_count_and_a_lost_one_does_not(
    cluster: Cluster, store: Database, duty: DeletionCost
) -> None:
    """A worker that lost its lease starts over in the same pod, under a new id."""
    cluster.pods["pod"] = {}
    lost = await busy(store, "pod", 40)
    await store.fetch("UPDATE workers SET expires_at = now() - interval '1 s' WHERE id = $1", lost)
    await busy(store, "pod", 1)
    await busy(store, "pod", 1)
    await duty.run_once()
    assert cluster.patches == [("pod", "2")]


async def test_a_pod_that_is_gone_is_no_error_and_not_asked_for_again(
    cluster: Cluster, store: Database, duty: DeletionCost
) -> None:
    cluster.pods["here"] = {}
    await busy(store, "gone", 1)
    await busy(store, "here", 1)
    await duty.run_once()
    await duty.run_once()
    assert sorted(cluster.patches) == [("gone", "1"), ("here", "1")]


async def test_a_round_writes_a_bounded_number_and_what_became_idle_or_busy_first(
    cluster: Cluster, store: Database, duty: DeletionCost
) -> None:
    count = PATCHES_PER_ROUND + 5
    ids = [await busy(store, f"pod-{number:02}", 2) for number in range(count)]
    await duty.run_once()
    assert len(cluster.patches) == PATCHES_PER_ROUND
    await duty.run_once()
    assert len(cluster.patches) == len(set(cluster.patches)) == count

    for worker_id in ids:
        await workers.heartbeat(store, worker_id, lease_seconds=600.0, running=4)
    await workers.heartbeat(store, ids[-1], lease_seconds=600.0, running=0)
    cluster.patches.clear()
    await duty.run_once()
    assert cluster.patches[0] == (f"pod-{count - 1}", "0")


async def test_a_host_that_cannot_be_a_pod_is_left_alone(cluster: Cluster, store: Database, duty: DeletionCost) -> None:
    for host in ("../secrets/x", "Laptop.local", "", "pod/status", "a b"):
        await busy(store, host, 1)
    await duty.run_once()
    assert cluster.patches == []


async def test_without_the_right_to_patch_it_says_so_and_goes_on_later(
    cluster: Cluster, store: Database, duty: DeletionCost
) -> None:
    cluster.pods["pod"] = {}
    await busy(store, "pod", 1)
    cluster.refuses = 403
    with pytest.raises(ClusterUnavailable, match="403 refused by the test"):
        await duty.run_once()
    cluster.refuses = 0
    await duty.run_once()
    assert cluster.patches == [("pod", "1")]


@pytest.mark.parametrize("wanted", [True, False])
async def test_pods_are_marked_only_when_the_setting_says_so(
    settings_with: Callable[..., Settings],
    server_authority: Authority,
    cluster: Cluster,
    store: Database,
    wanted: bool,
) -> None:
    cluster.pods["pod"] = {}
    await busy(store, "pod", 1)
    async with serving(settings_with(deletion_cost=wanted), server_authority):
        if wanted:
            await eventually(lambda: cluster.pods["pod"] == {ANNOTATION: "1"})
        else:
            await stays(lambda: cluster.patches == [], 0.3)
