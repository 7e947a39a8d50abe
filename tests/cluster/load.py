"""Clients inside the cluster, where no port-forward breaks: one pod of the API's image, driven by `kubectl exec`.

Out: what the API answered while something happened (`Seen`), and after it whether rows and answers agree (`audit`).
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.client import PROOF
from tests.cluster.kube import Body, CommandFailed, Kubectl
from tests.support.eventually import eventually_sync

SCRIPT = Path(__file__).with_name("client.py")
NAME = "test-client"
LOOK_SECONDS = 0.5
SETTLE_SECONDS = 300.0
"""Until the last task has ended: what a lost worker held waits for its lease first."""
MARGIN_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """What the clients saw while tasks flowed, and what became of those."""

    accepted: int
    done: int
    rows: int
    unknown: int
    given_up: int
    unfinished: int
    interrupted: dict[str, int]
    """How many tasks needed a later attempt, by the reason."""
    gap: float
    answers: dict[str, int]
    other: dict[str, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Requests that were not answered with 201."""
        return sum(count for status, count in self.answers.items() if status != "201")

    @property
    def wrong(self) -> list[str]:
        """What breaks the promise that accepted means done, once."""
        found = []
        if self.missing or self.done != self.accepted:
            found.append(f"{self.accepted} accepted, {self.done} done, others {self.other}, missing {self.missing}")
        if self.unfinished:
            found.append(f"{self.unfinished} tasks had not ended")
        if self.given_up:
            found.append(f"{self.given_up} submits with a key were never answered with 201")
        if not 0 <= self.rows - self.accepted <= self.unknown:
            found.append(f"{self.rows} rows for {self.accepted} accepted and {self.unknown} unknown submits")
        return found

    def __str__(self) -> str:
        parts = [f"{self.accepted:,} accepted"]
        if refused := {status: count for status, count in self.answers.items() if status != "201"}:
            parts.append(", ".join(f"{count} x {status}" for status, count in sorted(refused.items())))
        else:
            parts.append("none refused")
        parts.append(f"longest gap {self.gap:.1f} s")
        parts += [f"{count} at a later attempt ({why})" for why, count in sorted(self.interrupted.items())]
        return ", ".join(parts)


class Load:
    """The client's pod."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def create(self, image: str, pull_secrets: list[Body], url: str, keys: str) -> None:
        """Make the pod and wait until it runs; it shows the administrator's key of the Secret."""
        hardened = {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        }  # fmt: skip
        container = {
            "name": "client", "image": image, "imagePullPolicy": "IfNotPresent",
            # the first process of a container ignores the signals that it does not handle
            "command": ["python", "-c", "import signal; signal.sigwait({signal.SIGTERM})"],
            "env": [
                {"name": "BOBRAI_TEST_URL", "value": url},
                {"name": "BOBRAI_TEST_KEY", "valueFrom": {"secretKeyRef": {"name": keys, "key": "admin"}}},
            ],
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            "securityContext": hardened,
            "volumeMounts": [{"name": "script", "mountPath": "/client"}, {"name": "tmp", "mountPath": "/tmp"}],
        }  # fmt: skip
        spec = {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": pull_secrets,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "script", "configMap": {"name": NAME}}, {"name": "tmp", "emptyDir": {}}],
        }  # fmt: skip
        for body in (
            {"kind": "ConfigMap", "data": {"client.py": SCRIPT.read_text()}},
            {"kind": "Pod", "spec": spec},
        ):
            self._kubectl.run(
                "apply", "-f", "-", given=json.dumps(body | {"apiVersion": "v1", "metadata": {"name": NAME}})
            )
        self._kubectl.run("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=120s", seconds=150)

    def remove(self) -> None:
        """Take the pod and its script away."""
        self._kubectl.run("delete", f"pod/{NAME}", f"configmap/{NAME}", "--ignore-not-found", seconds=120)

    @contextlib.contextmanager
    def flowing(self, name: str) -> Iterator[None]:
        """Let tasks flow while the block runs; `audit` then says what became of them."""
        with self._kubectl.running(*self._program("flow", name=name)) as process:
            try:
                eventually_sync(
                    lambda: self._exists(f"{name}.flowing") or process.poll() is not None,
                    60, message="tasks flow", longest_pause=LOOK_SECONDS,
                )  # fmt: skip
                if process.poll() is not None:
                    raise CommandFailed(
                        f"the client ended: {(process.stdout.read() if process.stdout else '')[-2000:]}"
                    )
                yield
            finally:
                # also when the stream of `kubectl exec` has broken: what counts is in files of the pod
                self._shell("touch", f"/tmp/{name}.stop")
            eventually_sync(
                lambda: self._exists(f"{name}.json"),
                SETTLE_SECONDS, message="every submit has its answer", longest_pause=LOOK_SECONDS,
            )  # fmt: skip

    def audit(self, name: str, seconds: float = SETTLE_SECONDS) -> Seen:
        """Wait until every task has ended, and compare."""
        return Seen(**self._ask("audit", seconds, name=name, seconds=seconds))

    def submit(self, body: Body, count: int) -> list[int]:
        """Submit a task so many times."""
        return list(self._ask("submit", 120, body=body, count=count)["ids"])

    def wait_done(self, ids: list[int], seconds: float = SETTLE_SECONDS) -> list[Any]:
        """Wait until tasks are done, and return their results."""
        return list(self._ask("wait_done", seconds, ids=ids, seconds=seconds)["results"])

    def wait_ended(self, ids: list[int], seconds: float = SETTLE_SECONDS) -> list[Body]:
        """Wait until tasks have ended, however, and return them."""
        return list(self._ask("wait_ended", seconds, ids=ids, seconds=seconds)["tasks"])

    def watch(self, type_: str, member: str, seconds: float = SETTLE_SECONDS) -> Body:
        """Look again and again, until no task of a type is left, how many run for each value of a payload's member."""
        return self._ask("watch", seconds, type_=type_, member=member, seconds=seconds)

    def race(self, body: Body, count: int) -> Body:
        """Submit a task so many times at once; returns the ``answers`` by status and the ``ids`` they name."""
        return self._ask("race", 120, body=body, count=count)

    def request(self, method: str, path: str, body: Body) -> Body:
        """Ask the API until it agrees, and return its answer."""
        return self._ask("request", 120, method=method, path=path, body=body)

    def prove(self) -> None:
        """See one task through from its submit to its result."""
        assert self.wait_done(self.submit({"type": "echo", "payload": PROOF}, 1)) == [PROOF]

    def statuses(self, ids: list[int]) -> list[int | str]:
        """What GET answers for each task."""
        return list(self._ask("statuses", 120, ids=ids)["statuses"])

    def _ask(self, command: str, patience: float, /, **arguments: Any) -> Body:
        printed = self._kubectl.run(*self._program(command, **arguments), seconds=patience + MARGIN_SECONDS)
        answer: Body = json.loads(printed)
        return answer

    def _exists(self, file: str) -> bool:
        return self._kubectl.attempt("exec", NAME, "--", "test", "-e", f"/tmp/{file}").returncode == 0

    def _shell(self, *command: str) -> None:
        self._kubectl.run("exec", NAME, "--", *command)

    @staticmethod
    def _program(command: str, **arguments: Any) -> list[str]:
        return ["exec", NAME, "--", "python", "/client/client.py", command, json.dumps(arguments)]
