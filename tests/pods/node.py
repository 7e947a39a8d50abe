"""Runs rendered pods on the container engine that answers, the way the kubelet runs them.

In: the objects of a release. Out: containers with the same image, command, environment, user, groups, capabilities,
read-only root and mounts; init containers run first, probes decide what is ready, preStop and grace end it. What this
is not: no scheduler, no Service with many backends (a name leads to one pod), no Kubernetes API. Needs root, because
the kubelet gives volumes to a pod's group.
"""

import base64
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from tests.charts.helm import Manifest, Rendered
from tests.images.engine import docker
from tests.pods.pod import Pod

SUBNET = f"10.213.{os.getpid() % 250 + 1}"
"""Of its own for each run, so that what a killed one left behind is in nobody's way."""


class Node:
    """One machine that runs the pods of one release; a context manager that removes all it made."""

    def __init__(self, release: Rendered, folder: Path) -> None:
        self.release = release
        self.folder = folder
        self.network = f"bobrai-{os.getpid()}"
        """The engine's network that all pods share."""
        self.pods: list[Pod] = []

    def __enter__(self) -> Self:
        docker("network", "create", "--subnet", f"{SUBNET}.0/24", self.network)
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.remove()
        docker("network", "rm", self.network, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, kind: str, name: str, replicas: int = 1) -> list[Pod]:
        """Give a workload's pods their names and addresses, by which the others find them once they start."""
        workload = self.release.one(kind, name)
        added = []
        for number in range(replicas):
            own = name if replicas == 1 and kind != "StatefulSet" else f"{name}-{number}"
            added.append(Pod(self, own, f"{SUBNET}.{len(self.pods) + 10}", workload))
            self.pods.append(added[-1])
        return added

    def start(self, pods: Iterable[Pod], seconds: float) -> None:
        """Start pods at once, as a cluster does, and wait until all are ready."""
        together = list(pods)
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(len(together)) as threads:
            for done in [threads.submit(pod.bring_up, until) for pod in together]:
                done.result()

    def hosts(self) -> Iterator[tuple[str, str]]:
        """Yield every name that leads somewhere, with its address: Services, and the pods of headless ones."""
        for service in self.release.all("Service"):
            backends = [pod for pod in self.pods if service.spec["selector"].items() <= pod.labels.items()]
            namespace = service.body["metadata"]["namespace"]
            suffixes = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
            if service.spec.get("clusterIP") == "None":
                names = [(f"{pod.name}.{service.name}", pod) for pod in backends]
            else:
                names = [(service.name, pod) for pod in backends[:1]]
            yield from ((name + suffix, pod.address) for name, pod in names for suffix in suffixes)

    def content(self, kind: str, name: str) -> Mapping[str, bytes]:
        """Return what a ConfigMap or Secret holds."""
        held: Manifest = self.release.one(kind, name)
        data: Mapping[str, Any] = held.body["data"]
        if kind == "Secret":
            return {key: base64.b64decode(value) for key, value in data.items()}
        return {key: str(value).encode() for key, value in data.items()}
