"""The backlog makes more workers, and fewer again once it is gone."""

import time
from collections.abc import Callable

from tests.cluster.installation import LOOK_SECONDS, Installation
from tests.cluster.preflight import RELEASE
from tests.cluster.report import NotRun
from tests.support.eventually import eventually_sync

COMPONENT = "worker-default"
TASKS, TASK_SECONDS = 80, 10.0
WANTED = 3
"""Workers that the backlog must bring, at least."""
SCALE_SECONDS = 240.0


def scale_by_backlog(installation: Installation) -> str:
    """The built-in metrics make Kubernetes scale a pool."""
    if reason := installation.plan.without_scaling:
        raise NotRun(reason)
    if not installation.kubectl.exists("hpa", f"{RELEASE}-{COMPONENT}"):
        raise NotRun("the values have no autoscaler for the pool `default`")
    before = installation.replicas(COMPONENT)
    begun = time.monotonic()
    tasks = installation.load.submit({"type": "pause", "payload": TASK_SECONDS}, TASKS)
    most = _wait_replicas(installation, lambda number: number >= max(WANTED, before + 1), "more workers")
    up = time.monotonic() - begun
    installation.load.wait_done(tasks)
    idle = time.monotonic()
    least = _wait_replicas(installation, lambda number: number <= before, "fewer workers")
    down = time.monotonic() - idle
    return (
        f"{TASKS} tasks of {TASK_SECONDS:g} s: from {before} to {most} workers in {up:.0f} s; "
        f"{least} again {down:.0f} s after the last was done"
    )


def _wait_replicas(installation: Installation, enough: Callable[[int], bool], message: str) -> int:
    def number() -> int:
        found = installation.replicas(COMPONENT)
        assert enough(found), f"{found} workers; {installation.kubectl.attempt('get', 'hpa').stdout}"
        return found

    return eventually_sync(number, SCALE_SECONDS, message=message, longest_pause=LOOK_SECONDS)
