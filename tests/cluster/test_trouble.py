"""A pod that will not come up is told from one that needs a moment, and the user hears what helps."""

from typing import Any

import pytest

from tests.cluster.trouble import PATIENCE_SECONDS, Trouble, Watch, remedy, troubles

IMAGE = "ghcr.io/bobrai/bobrai-api:0.1.0"


def _pod(reason: str = "", restarts: int = 0, *, init: bool = False, unschedulable: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "said by the kubelet"}} if reason else {"running": {}}
    container = {"name": "api", "image": IMAGE, "restartCount": restarts, "state": state}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
    return {
        "metadata": {"name": "bobrai-api-1"},
        "status": {
            "initContainerStatuses" if init else "containerStatuses": [container],
            "conditions": [condition] if unschedulable else [],
        },
    }


@pytest.mark.parametrize(
    "pod", [_pod(), _pod("ContainerCreating"), _pod("PodInitializing"), _pod("CrashLoopBackOff", restarts=1), {}]
)
def test_what_needs_a_moment_is_no_trouble(pod: dict[str, Any]) -> None:
    assert troubles([pod or {"metadata": {"name": "new"}}]) == []


@pytest.mark.parametrize(
    ("pod", "kind", "word"),
    [
        (_pod("ErrImagePull"), "pull", "ErrImagePull"),
        (_pod("ImagePullBackOff", init=True), "pull", "said by the kubelet"),
        (_pod("ErrImageNeverPull"), "final", "ErrImageNeverPull"),
        (_pod("CreateContainerConfigError"), "final", "said by the kubelet"),
        (_pod("CrashLoopBackOff", restarts=3), "crash", "api"),
        (_pod(unschedulable="0/1 nodes: Insufficient memory"), "unschedulable", "Insufficient memory"),
    ],
)
def test_trouble_is_named_once_it_lasts(pod: dict[str, Any], kind: str, word: str) -> None:
    now = [0.0]
    watch = Watch(lambda: now[0])
    assert watch.lasting([pod]) is None
    now[0] = PATIENCE_SECONDS[kind] - 0.1
    assert watch.lasting([pod]) is None
    now[0] = PATIENCE_SECONDS[kind]
    found = watch.lasting([pod])
    assert found is not None
    assert (found.kind, found.pod) == (kind, "bobrai-api-1")
    assert word in str(found)


def test_trouble_that_ended_is_forgotten() -> None:
    now = [0.0]
    watch = Watch(lambda: now[0])
    watch.lasting([_pod("ErrImagePull")])
    now[0] = 30.0
    assert watch.lasting([_pod()]) is None
    now[0] = 60.0
    assert watch.lasting([_pod("ErrImagePull")]) is None


@pytest.mark.parametrize(
    ("context", "helps"),
    [
        ("kind-mine", f"kind load docker-image --name mine {IMAGE}"),
        ("minikube", f"minikube image load {IMAGE}"),
        ("production", "API_IMAGE="),
    ],
)
def test_an_image_that_cannot_be_pulled_is_answered_with_what_helps_there(context: str, helps: str) -> None:
    assert helps in remedy(Trouble("pull", "bobrai-api-1", "ErrImagePull", IMAGE), context)
