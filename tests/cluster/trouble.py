"""Why pods do not come up, said early: a pull that fails, a container that keeps ending, a pod that fits on no node.

In: pods as the API server shows them, looked at again and again. Out: nothing while it may still come right, then what
is wrong with which pod, and what helps. A Kubernetes that scales its nodes is given the time to.
"""

import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.cluster.kube import Body, Kubectl

IMAGE = {"ErrImagePull": "pull", "ImagePullBackOff": "pull", "ErrImageNeverPull": "final", "InvalidImageName": "final"}
PATIENCE_SECONDS = {"pull": 40.0, "crash": 5.0, "final": 10.0, "unschedulable": 60.0}
"""How long each kind of trouble may last, for some of it mends itself."""
CRASHES = 3
"""A container that ended so often, with longer and longer pauses, has been at it for more than a minute."""
LOG_LINES = 15
MESSAGE = 160


@dataclass(frozen=True)
class Trouble:
    """One pod that does not come up."""

    kind: str
    pod: str
    reason: str
    image: str = ""

    def __str__(self) -> str:
        return f"pod {self.pod}: {self.reason}"


def troubles(pods: Iterable[Body]) -> list[Trouble]:
    """Return what is wrong with these pods at this moment."""
    return [trouble for pod in pods if (trouble := _trouble(pod))]


def _trouble(pod: Body) -> Trouble | None:
    name, status = str(pod["metadata"]["name"]), pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        said = f"{container['name']}: {reason}: {textwrap.shorten(message, MESSAGE, placeholder=' …')}"
        if reason in IMAGE:
            return Trouble(IMAGE[reason], name, said, container.get("image", ""))
        if reason == "CreateContainerConfigError":
            return Trouble("final", name, said)
        if reason == "CrashLoopBackOff" and container["restartCount"] >= CRASHES:
            return Trouble("crash", name, said)
    for condition in status.get("conditions", []):
        if condition.get("reason") == "Unschedulable":
            return Trouble("unschedulable", name, f"Unschedulable: {condition.get('message', '')}")
    return None


class Watch:
    """Remembers since when each pod has been in trouble."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[tuple[str, str], float] = {}

    def lasting(self, pods: Iterable[Body]) -> Trouble | None:
        """Return the first trouble that has lasted for too long; called every few seconds."""
        now, current = self._now(), troubles(pods)
        keys = {(each.pod, each.kind) for each in current}
        self._since = {key: since for key, since in self._since.items() if key in keys}
        for each in current:
            since = self._since.setdefault((each.pod, each.kind), now)
            if now - since >= PATIENCE_SECONDS[each.kind]:
                return each
        return None


def remedy(trouble: Trouble, context: str) -> str:
    """Say what the user can do about it."""
    if trouble.image:
        if context.startswith("kind-"):
            load = f"kind load docker-image --name {context.removeprefix('kind-')} {trouble.image}"
        elif context == "minikube":
            load = f"minikube image load {trouble.image}"
        else:
            load = "push it to a registry that the nodes can pull from, and name it: API_IMAGE=… WORKER_IMAGE=…"
        return f"the nodes cannot have the image {trouble.image}. `make images` builds bobrAI's; then: {load}"
    if trouble.kind == "unschedulable":
        less = "VALUES=charts/bobrai/ci/single-node-values.yaml"
        return f"give the cluster more room or a StorageClass that works, or ask for less: {less}"
    return "the end of its log is above"


def waits_for_nodes(kubectl: Kubectl, pod: str) -> bool:
    """Whether the cluster is adding a node for this pod."""
    events = kubectl.items("events", f"--field-selector=involvedObject.name={pod}")
    return any(event.get("reason") == "TriggeredScaleUp" for event in events)


def report(kubectl: Kubectl, pod: str) -> str:
    """Return a pod's last events and the ends of its logs."""
    events = sorted(
        kubectl.items("events", f"--field-selector=involvedObject.name={pod}"),
        key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""),
    )
    lines = [f"  {event.get('reason')}: {event.get('message')}" for event in events[-5:]]
    for when in ("--previous", "--previous=false"):
        log = kubectl.attempt("logs", pod, "--all-containers", "--prefix", f"--tail={LOG_LINES}", when).stdout
        lines += [f"  {line}" for line in log.splitlines()]
    return "\n".join([f"events and logs of {pod}:", *(lines or ["  none"])])
