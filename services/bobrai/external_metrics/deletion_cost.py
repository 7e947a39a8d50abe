"""Marks busy worker pods by the annotation ``controller.kubernetes.io/pod-deletion-cost``: scale-in takes idle ones.

In: the rows of living workers; a worker's host is its pod's name. Out: patches, each only when a pod's mark changes,
and a bounded number per round. Marks are coarse, one step for each doubling of the running tasks: Kubernetes asks not
to write them often, and which of two busy pods goes first matters little.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from bobrai.external_metrics.kubernetes import Kubernetes
from bobrai.store import workers
from bobrai.store.pool import Database
from bobrai.store.workers import LiveWorker
from bobrai.telemetry import metrics

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
PATCHES_PER_ROUND: Final = 20
_POD_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class DeletionCost:
    """Keeps the marks of a namespace's worker pods."""

    def __init__(self, database: Database, kubernetes: Kubernetes, namespace: str) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._marked: dict[str, int] = {}  # pod -> what it was last given; a pod that is new here may carry anything

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable and ClusterUnavailable, and what is left is done by the next."""
        wanted = costs(await workers.live(self._database))
        self._marked = {pod: cost for pod, cost in self._marked.items() if pod in wanted}
        for pod in self._by_urgency(wanted)[:PATCHES_PER_ROUND]:
            exists = await self._kubernetes.annotate_pod(self._namespace, pod, {ANNOTATION: str(wanted[pod])})
            metrics.POD_DELETION_COSTS.labels("written" if exists else "gone").inc()
            self._marked[pod] = wanted[pod]

    def _by_urgency(self, wanted: Mapping[str, int]) -> list[str]:
        # Whether a pod is idle at all comes first: that is what decides whether scale-in interrupts anything.
        changed = [pod for pod, cost in wanted.items() if self._marked.get(pod) != cost]
        return sorted(changed, key=lambda pod: (bool(self._marked.get(pod, -1)) == bool(wanted[pod]), pod))


def costs(living: Iterable[LiveWorker]) -> dict[str, int]:
    """Return the mark of each pod: 0 when idle, 1 for one running task, 2 for two or three, 3 up to seven, …"""
    running: Counter[str] = Counter()
    for worker in living:
        if _POD_NAME.fullmatch(worker.host):
            running[worker.host] += max(worker.running, 0)
    return {pod: tasks.bit_length() for pod, tasks in running.items()}
