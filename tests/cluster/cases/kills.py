"""Pods of each component are deleted and killed under load: no accepted task is lost, and few requests notice.

Deleted: as an eviction does it, with its grace. Killed: `--force --grace-period=0`, as when a machine is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.cluster.installation import Installation
from tests.cluster.load import Seen
from tests.cluster.report import NotRun


@dataclass(frozen=True)
class Kind:
    """A component, and whether clients may notice when one of its pods is killed."""

    component: str
    title: str
    killed_refuses: bool = False


KINDS = (
    Kind("api", "API", killed_refuses=True),
    Kind("dispatcher", "dispatcher"),
    Kind("worker-default", "worker"),
    Kind("pgbouncer", "PgBouncer", killed_refuses=True),
    Kind("rabbitmq", "RabbitMQ node"),
    # there is one: of a statement that is under way when it is killed nobody knows the outcome
    Kind("postgresql", "PostgreSQL", killed_refuses=True),
)
WAYS = {"deleted": ["--wait=false"], "killed": ["--force", "--grace-period=0"]}


def lose_pods(kind: Kind, installation: Installation) -> str:
    """Delete one pod, then kill one, each while tasks flow."""
    if not installation.has(kind.component):
        raise NotRun(f"the values bring no {kind.title} of the release's own")
    seen = {way: _lose_pod(kind, way, installation) for way in WAYS}
    return "; ".join(f"{way}: {each}" for way, each in seen.items()) + "; all done"


def _lose_pod(kind: Kind, way: str, installation: Installation) -> Seen:
    name = f"{kind.component}-{way}"
    with installation.load.flowing(name):
        pod = installation.pods(kind.component)[-1]["metadata"]["name"]
        installation.kubectl.run("delete", "pod", pod, *WAYS[way])
        installation.wait_ready()
        installation.load.prove()
    seen = installation.load.audit(name)
    wrong = seen.wrong
    if seen.refused and not (way == "killed" and kind.killed_refuses):
        wrong.append(f"{seen.refused} requests were refused or cut: {seen.refusals}")
    assert not wrong, f"{pod} {way}: {'; '.join(wrong)} ({seen})"
    return seen


CASES: dict[str, Callable[[Installation], str]] = {f"lost {kind.title}": partial(lose_pods, kind) for kind in KINDS}
