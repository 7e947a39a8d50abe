"""One pod on a node: init containers to their end, then its containers, until it is stopped.

In: a workload of a release. Out: a ready pod, or PodFailed with the container's log. ``mounts`` makes its volumes.
"""

import socket
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.charts.helm import Manifest
from tests.images.engine import docker, tail
from tests.pods.mounts import Mounts

if TYPE_CHECKING:
    from tests.pods.node import Node

LOOK_SECONDS = 0.3
START_SECONDS = 300.0

Body = dict[str, Any]


class PodFailed(AssertionError):
    """A container did not do what its pod needs; the message has its log."""


class Pod:
    """A pod; ``bring_up``, ``run`` and ``stop`` are its life."""

    def __init__(self, node: "Node", name: str, address: str, workload: Manifest) -> None:
        self.name = name
        self.address = address
        self.spec = workload.pod
        self.labels: dict[str, str] = workload.pod_metadata["labels"]
        self._node = node
        self._namespace = str(workload.body["metadata"]["namespace"])
        self._mounts = Mounts(node, self.name, self.spec, workload)
        self._created: set[str] = set()

    # --- life ------------------------------------------------------------------------------------------------------

    def bring_up(self, until: float) -> None:
        """Start, and wait until startup and readiness probes succeed; until is on the monotonic clock."""
        self.start()
        for container in self.spec["containers"]:
            for kind in ("startupProbe", "readinessProbe"):
                while kind in container and (wrong := self._probe(container, container[kind])):
                    if not self.is_running or time.monotonic() > until:
                        raise PodFailed(f"{self.name}: {kind}: {wrong}\n{self.log()}")
                    time.sleep(LOOK_SECONDS)

    def start(self) -> None:
        """Run the init containers to their end, then start the containers."""
        for container in self.spec.get("initContainers", []):
            name = self._create(container)
            docker("start", name)
            code = docker("wait", name, timeout=START_SECONDS).stdout.strip()
            if code != "0":
                raise PodFailed(f"{self.name}: init container {container['name']} ended with {code}\n{self._log(name)}")
        for container in self.spec["containers"]:
            docker("start", self._create(container))

    def run(self, seconds: float) -> str:
        """Run a pod that ends by itself and return its log; raises PodFailed when it ends badly."""
        self.start()
        code = docker("wait", self._main, timeout=seconds).stdout.strip()
        if code != "0":
            raise PodFailed(f"{self.name} ended with {code}\n{self.log()}")
        return self.log()

    def stop(self) -> int:
        """End the pod as the kubelet does: preStop, the stop signal, a kill once the grace is over.

        Returns the exit code, 137 after a kill.
        """
        hook = self.spec["containers"][0].get("lifecycle", {}).get("preStop", {})
        grace = self.spec["terminationGracePeriodSeconds"]
        began = time.monotonic()
        if "exec" in hook:
            docker("exec", self._main, *hook["exec"]["command"], check=False, timeout=grace)
        left = max(2, int(grace - (time.monotonic() - began)))
        docker("stop", "--time", str(left), self._main, timeout=left + 60)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self._main).stdout)

    def kill(self) -> None:
        """Let the containers vanish, as when their node loses power."""
        self.remove()

    def remove(self) -> None:
        """Remove the containers; what claims hold stays with the node."""
        for name in self._created:
            docker("rm", "--force", "--volumes", name, check=False)
        self._created.clear()

    def exec(self, *command: str) -> str:
        """Return what a command in the first container prints."""
        return docker("exec", self._main, *command).stdout

    def log(self) -> str:
        """Return the end of the first container's log."""
        return self._log(self._main)

    @property
    def is_running(self) -> bool:
        """Whether the first container runs."""
        return docker("inspect", "--format", "{{.State.Running}}", self._main).stdout.strip() == "true"

    @property
    def _main(self) -> str:
        return self._container(self.spec["containers"][0])

    def _container(self, container: Body) -> str:
        return f"{self._node.network}-{self.name}-{container['name']}"

    @staticmethod
    def _log(name: str) -> str:
        return tail(docker("logs", "--tail", "80", name, check=False))

    # --- probes ----------------------------------------------------------------------------------------------------

    def _probe(self, container: Body, probe: Body) -> str:
        """Return what is wrong, empty for a success."""
        seconds = probe.get("timeoutSeconds", 1)
        try:
            if "exec" in probe:
                done = docker("exec", self._container(container), *probe["exec"]["command"], check=False)
                return tail(done) if done.returncode else ""
            port = self._port(container, probe.get("tcpSocket") or probe["httpGet"])
            if "tcpSocket" in probe:
                socket.create_connection((self.address, port), seconds).close()
            else:
                urllib.request.urlopen(
                    f"http://{self.address}:{port}{probe['httpGet']['path']}", timeout=seconds
                ).close()
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.read(500).decode(errors='replace')}"
        except OSError as error:
            return str(error)
        return ""

    @staticmethod
    def _port(container: Body, target: Body) -> int:
        port = target["port"]
        names = {each["name"]: each["containerPort"] for each in container["ports"]}
        return port if isinstance(port, int) else int(names[port])

    # --- containers ------------------------------------------------------------------------------------------------

    def _create(self, container: Body) -> str:
        name = self._container(container)
        docker("rm", "--force", "--volumes", name, check=False)
        context, security = self.spec["securityContext"], container["securityContext"]
        options = ["--name", name, "--hostname", self.name, "--network", self._node.network, "--ip", self.address]
        options += ["--user", f"{context['runAsUser']}:{context['runAsGroup']}", "--group-add", str(context["fsGroup"])]
        options += [f"--cap-drop={each}" for each in security["capabilities"]["drop"]]
        options += [] if security["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges"]
        options += ["--read-only"] if security.get("readOnlyRootFilesystem") else []
        if memory := container["resources"].get("limits", {}).get("memory"):
            options += ["--memory", memory.removesuffix("i").lower()]
        options += [f"--add-host={host}:{address}" for host, address in self._node.hosts()]
        environment = self._environment(container)
        options += [part for variable, value in environment.items() for part in ("--env", f"{variable}={value}")]
        for mount in container.get("volumeMounts", []):
            mode = ":ro" if mount.get("readOnly") else ""
            options += ["--volume", f"{self._mounts.source(mount)}:{mount['mountPath']}{mode}"]
        command = [_expand(part, environment) for part in (*container.get("command", ()), *container.get("args", ()))]
        if container.get("command"):
            options += ["--entrypoint", command.pop(0)]
        docker("create", *options, container["image"].removeprefix("docker.io/library/"), *command)
        self._created.add(name)
        return name

    def _environment(self, container: Body) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if reference := source.get("secretKeyRef"):
                value = self._node.content("Secret", reference["name"]).get(reference["key"])
                if value is None and not reference.get("optional"):
                    raise PodFailed(f"{self.name}: Secret {reference['name']} has no key {reference['key']}")
                if value is not None:
                    found[entry["name"]] = value.decode()
            elif reference := source.get("fieldRef"):
                fields = {"metadata.name": self.name, "metadata.namespace": self._namespace}
                found[entry["name"]] = fields[reference["fieldPath"]]
            else:
                found[entry["name"]] = _expand(str(entry["value"]), found)
        return found


def _expand(text: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(f"$({name})", value)
    return text
