"""Install, the chart's own test, and uninstall with a look at what remains."""

from collections import Counter
from collections.abc import Iterable

from tests.cluster.installation import LOOK_SECONDS, Installation, named
from tests.cluster.kube import Body
from tests.cluster.preflight import RELEASE
from tests.cluster.report import NotRun
from tests.support.eventually import eventually_sync

GONE_SECONDS = 400.0
"""RabbitMQ's nodes wait for each other when all of them go."""
KINDS = (
    "pods,deployments,statefulsets,jobs,cronjobs,services,configmaps,secrets,serviceaccounts,persistentvolumeclaims,"
    "horizontalpodautoscalers,poddisruptionbudgets,networkpolicies,roles,rolebindings"
)
KUBERNETES_OWN = {"ConfigMap/kube-root-ca.crt", "ConfigMap/openshift-service-ca.crt", "ServiceAccount/default"}
KEEP = ("helm.sh/resource-policy", "keep")


def install(installation: Installation) -> str:
    """`helm install --wait` brings up every pod."""
    installation.create_namespace()
    installation.apply("install")
    installation.wait_ready()
    installation.create_client()
    parts = [f"{each['metadata']['name'].removeprefix(f'{RELEASE}-')} {each['spec']['replicas']}"
             for each in installation.workloads()]  # fmt: skip
    return f"ready: {', '.join(parts)}"


def smoke(installation: Installation) -> str:
    """`helm test` passes."""
    done = installation.plan.helm.attempt("test", RELEASE, "--timeout=330s", seconds=360)
    if done.returncode != 0:
        log = installation.kubectl.attempt("logs", f"{RELEASE}-smoke").stdout
        raise AssertionError(f"helm test: {(done.stderr or done.stdout).strip()[-1000:]}\n{log[-1000:]}")
    installation.load.prove()
    return "helm test passed; a task went through from inside the cluster"


def uninstall(installation: Installation) -> str:
    """What remains is what the chart keeps on purpose, and after the namespace nothing does."""
    if installation.plan.options.keep:
        raise NotRun("KEEP=1 keeps the release")
    kubectl, namespace = installation.kubectl, installation.plan.namespace
    kept = _kept(installation.plan.objects)
    installation.load.remove()
    installation.plan.helm.run("uninstall", RELEASE, "--wait", "--timeout=300s", seconds=330)

    def only_kept_remain() -> bool:
        found = {named(each) for each in kubectl.items(KINDS)} - KUBERNETES_OWN
        assert found == kept, f"left over {sorted(found - kept)}, missing {sorted(kept - found)}"
        return True

    eventually_sync(only_kept_remain, GONE_SECONDS, message="the release is gone", longest_pause=LOOK_SECONDS)
    installation.delete_namespace()
    assert not (left := installation.left_outside()), f"outside the namespace are left: {left}"
    seen = (
        f"kept, as the chart says: {_counted(kept)}; then the namespace went, and nothing is left of "
        f"{', '.join(map(named, installation.outside())) or 'it'}"
    )
    volumes = [
        str(each["metadata"]["name"]) for each in installation.plan.kubectl.items("persistentvolumes")
        if each["spec"].get("claimRef", {}).get("namespace") == namespace
        and each["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    ]  # fmt: skip
    return f"{seen}. The StorageClass retains the disks: kubectl delete pv {' '.join(volumes)}" if volumes else seen


def _kept(objects: list[Body]) -> set[str]:
    """What an uninstall leaves: what is annotated so, and the claims of StatefulSets that retain them."""
    kept = set()
    for each in objects:
        if (each["metadata"].get("annotations") or {}).get(KEEP[0]) == KEEP[1]:
            kept.add(named(each))
        if (
            each["kind"] == "StatefulSet"
            and each["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
        ):
            for claim in each["spec"]["volumeClaimTemplates"]:
                stem = f"PersistentVolumeClaim/{claim['metadata']['name']}-{each['metadata']['name']}"
                kept |= {f"{stem}-{number}" for number in range(each["spec"]["replicas"])}
    return kept


def _counted(names: Iterable[str]) -> str:
    kinds = Counter(name.partition("/")[0] for name in names)
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(kinds.items())) or "nothing"
