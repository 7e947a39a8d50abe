"""The release under test in a namespace that this run made, and its removal.

In: a `Plan`. Out: pods by their component, waiting until all are ready (with the reason when they will not be), and
`removed`, after which the cluster is as before. Nothing here ever names another namespace.
"""

from collections.abc import Callable, Iterable

from tests.charts.helm import CHART
from tests.cluster import trouble
from tests.cluster.kube import Body, CommandFailed, Kubectl, Refused
from tests.cluster.load import Load
from tests.cluster.preflight import RELEASE, Plan, pod_of
from tests.support.eventually import eventually_sync


class WillNotComeUp(Refused):
    """A pod is in a trouble that waiting does not mend."""


INSTANCE = f"app.kubernetes.io/instance={RELEASE}"
COMPONENT = "app.kubernetes.io/component"
LOOK_SECONDS = 1.5
HELM_SECONDS = 900
READY_SECONDS = 600.0
REMOVAL_SECONDS = 300.0


class Installation:
    """One release, from its namespace to the end of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kubectl: Kubectl = plan.kubectl.inside(plan.namespace)
        self.load = Load(self.kubectl)
        self.is_made = False
        """Whether the namespace is there because this run made it."""

    # --- life ------------------------------------------------------------------------------------------------------

    def create_namespace(self) -> None:
        """Make the namespace; one that exists is refused and left alone."""
        self.is_made = True
        try:
            self.plan.kubectl.run("create", "namespace", self.plan.namespace)
        except CommandFailed:
            self.is_made = False
            raise

    def apply(self, verb: str, *arguments: str) -> None:
        """Install or upgrade and wait as users do; a pod that will not come up ends it early, with the reason."""
        command = [verb, RELEASE, str(CHART), "--wait", f"--timeout={HELM_SECONDS}s", *self.plan.arguments, *arguments]
        with self.plan.helm.running(*command) as helm:
            self._wait(lambda: helm.poll() is not None, HELM_SECONDS + 60.0, f"helm {verb} returns")
            if helm.returncode != 0:
                raise CommandFailed(f"helm {verb}: {helm.communicate()[0].strip()[-2000:]}")

    def create_client(self) -> None:
        """Make the pod from which the load comes."""
        pod = pod_of(self.plan.objects, "api")
        url = f"http://{RELEASE}-api:{self.kubectl.get('service', f'{RELEASE}-api')['spec']['ports'][0]['port']}"
        (keys,) = [
            each["projected"]["sources"][0]["secret"]["name"] for each in pod["volumes"] if each["name"] == "keys"
        ]
        self.load.create(pod["containers"][0]["image"], pod.get("imagePullSecrets", []), url, keys)

    def remove(self) -> None:
        """Remove the release, then the namespace with all that is in it; whatever state they are in."""
        if not self.is_made:
            return
        # the release first: its APIService, without its pods, would keep every namespace of the cluster from going
        self.plan.helm.attempt("uninstall", RELEASE, "--no-hooks", "--timeout=60s", seconds=90)
        self.kubectl.attempt("delete", "pods", "--all", "--force", "--grace-period=0", seconds=60)
        self.delete_namespace()
        if left := self.left_outside():
            raise CommandFailed(f"left in the cluster: {', '.join(left)}")

    def delete_namespace(self) -> None:
        """Delete the namespace and wait until it is gone."""
        self.plan.kubectl.run(
            "delete", "namespace", self.plan.namespace, "--ignore-not-found", f"--timeout={REMOVAL_SECONDS:g}s",
            seconds=REMOVAL_SECONDS + 30,
        )  # fmt: skip
        self.is_made = False

    def outside(self) -> list[Body]:
        """What the release has outside its namespace."""
        return [each for each in self.plan.objects if each["metadata"].get("namespace") != self.plan.namespace]

    def left_outside(self) -> list[str]:
        """Of those, what is still there."""
        return [named(each) for each in self.outside() if self._is_there(each)]

    @property
    def commands(self) -> str:
        """How a person looks at the release and removes it."""
        kubectl = f"kubectl --context {self.plan.kubectl.context}"
        helm = f"helm --kube-context {self.plan.kubectl.context} --namespace {self.plan.namespace}"
        return (
            f"  {kubectl} --namespace {self.plan.namespace} get pods\n"
            f"  {helm} uninstall {RELEASE}; {kubectl} delete namespace {self.plan.namespace}"
        )

    # --- pods ------------------------------------------------------------------------------------------------------

    def workloads(self) -> list[Body]:
        """Every Deployment and StatefulSet of the release."""
        return self.kubectl.items("deployments,statefulsets", f"--selector={INSTANCE}")

    def pods(self, component: str = "") -> list[Body]:
        """The release's pods that run or shall, without those on their way out."""
        selector = f"{INSTANCE},{COMPONENT}={component}" if component else INSTANCE
        return [
            pod for pod in self.kubectl.items("pods", f"--selector={selector}")
            if "deletionTimestamp" not in pod["metadata"]
            and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
        ]  # fmt: skip

    def replicas(self, component: str) -> int:
        """How many pods a component shall have."""
        return int(self._workload(component)["spec"]["replicas"])

    def has(self, component: str) -> bool:
        """Whether the release has this component."""
        return any(_component(each) == component for each in self.workloads())

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every component has as many ready pods as it shall have."""

        def ready() -> bool:
            pods = self.pods()
            for each in self.workloads():
                own = [pod for pod in pods if pod["metadata"]["labels"].get(COMPONENT) == _component(each)]
                if sum(map(is_ready, own)) < each["spec"]["replicas"]:
                    raise AssertionError(f"{each['metadata']['name']}: {sum(map(is_ready, own))} ready pods")
            return True

        self._wait(ready, seconds, "all pods are ready")

    def diagnosis(self) -> str:
        """What to know of the pods that are not ready, for a failure."""
        lines = [self.kubectl.attempt("get", "pods").stdout.rstrip()]
        lines += [
            trouble.report(self.kubectl, pod["metadata"]["name"])
            for pod in self.kubectl.items("pods")
            if not is_ready(pod) and pod.get("status", {}).get("phase") != "Succeeded"
        ]
        return "\n".join(lines)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _workload(self, component: str) -> Body:
        return next(each for each in self.workloads() if _component(each) == component)

    def _wait(self, done: Callable[[], bool], seconds: float, message: str) -> None:
        """Wait as `eventually_sync` does, but give up at once when a pod will not come up."""
        watch = trouble.Watch()
        found = eventually_sync(
            lambda: self._trouble(watch) or done(), seconds, message=message, longest_pause=LOOK_SECONDS
        )
        if isinstance(found, trouble.Trouble):
            print(trouble.report(self.kubectl, found.pod), flush=True)
            raise WillNotComeUp(f"{found}; {trouble.remedy(found, self.plan.kubectl.context)}")

    def _is_there(self, each: Body) -> bool:
        group, slash, version = each["apiVersion"].rpartition("/")
        resource = f"{each['kind']}.{version}.{group}" if slash else each["kind"]
        where = [f"--namespace={namespace}"] if (namespace := each["metadata"].get("namespace")) else []
        return self.plan.kubectl.exists(resource, each["metadata"]["name"], *where)

    def _trouble(self, watch: trouble.Watch) -> trouble.Trouble | None:
        found = watch.lasting(self.kubectl.items("pods"))
        waits = found and found.kind == "unschedulable" and trouble.waits_for_nodes(self.kubectl, found.pod)
        return None if waits else found


def is_ready(pod: Body) -> bool:
    """Whether a pod takes traffic."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


def uids(pods: Iterable[Body]) -> set[str]:
    """What tells a pod from its successor of the same name."""
    return {pod["metadata"]["uid"] for pod in pods}


def named(body: Body) -> str:
    """An object's kind and name."""
    return f"{body['kind']}/{body['metadata']['name']}"


def _component(workload: Body) -> str:
    return str(workload["metadata"]["labels"][COMPONENT])
