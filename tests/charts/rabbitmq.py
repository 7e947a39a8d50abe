"""The chart's RabbitMQ nodes on this machine: prepared, started and stopped as their pods would be.

On one machine nodes differ by port and by the part of their names before the @; so the first one's name, which a node
derives from its own in a cluster, is said here. All else is as rendered.
"""

import http.client
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from tests.charts.containers import Pod, Programs, Secrets
from tests.charts.helm import Rendered, render
from tests.charts.postgresql import AWKWARD
from tests.support import discovery
from tests.support.discovery import ServerMissing
from tests.support.eventually import eventually_sync
from tests.support.pgbouncer import accepts_connections
from tests.support.rabbitmq_management import Management
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerDied, ServerProcess

NAME = "bobrai-rabbitmq"
NODE_SECONDS = 90.0
SECRETS: Secrets = {NAME: {"username": "bobrai", "password": AWKWARD, "erlang-cookie": "a-cookie-of-the-tests"}}


def programs(run: RunFolder) -> Programs:
    """RabbitMQ's programs; raises `ServerMissing` when they are older than the chart needs."""
    found = Programs(run, "rabbitmq", "rabbitmq-server")
    if tuple(map(int, found.version.split(".")[:2])) < (4, 3):
        raise ServerMissing("rabbitmq", [f"version {found.version}: the chart's probes and policies are for 4.3"])
    return found


class Node:
    """One pod of the StatefulSet."""

    def __init__(self, run: RunFolder, rendered: Rendered, number: int, epmd_port: int) -> None:
        self.number = number
        self.node_name = f"{NAME}-{number}@127.0.0.1"
        self.port, self.management_port, prometheus_port, distribution_port = (run.free_port() for _ in range(4))
        self.pod = Pod(
            run,
            programs(run),
            rendered,
            rendered.one("StatefulSet", NAME),
            secrets=SECRETS,
            name=f"{NAME}-{number}",
            replace={
                "listeners.tcp.default = 5672": f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                "management.tcp.port = 15672": _on_loopback("management", self.management_port),
                "prometheus.tcp.port = 15692": _on_loopback("prometheus", prometheus_port),
                "peer_discovery_backend = k8s": (
                    f"peer_discovery_backend = k8s\ncluster_formation.k8s.seed_node = {NAME}-0@127.0.0.1"
                ),
            },
            environment={
                "RABBITMQ_NODENAME": self.node_name,
                "RABBITMQ_DIST_PORT": str(distribution_port),
                "ERL_EPMD_PORT": str(epmd_port),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
            },
        )
        self.process: ServerProcess | None = None

    def prepare(self, peers: "Iterable[Node]" = (), **environment: str) -> str:
        """Run the init container; returns what it said."""
        given = {
            "NODE_HOST": "localhost",
            "START_DELAY_SECONDS": "0",
            "PEERS": " ".join(peer.address for peer in peers),
        }
        done = self.pod.run("prepare", **given, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def address(self) -> str:
        """What stands for it in PEERS."""
        return f"{self.node_name}:{self.management_port}"

    def launch(self) -> None:
        """Start the node without waiting for it."""
        self.process = self.pod.start("rabbitmq")

    def wait_started(self, *, restarts: int = 0) -> None:
        """Wait until startup and readiness probe pass: they ask without credentials, as the kubelet does.

        A node that ends meanwhile is started again so often; the kubelet does so without end.
        """
        assert self.process is not None
        try:
            self.process.wait_ready(lambda: self.startup_probe() == 200, timeout=NODE_SECONDS)
            self.process.wait_ready(lambda: accepts_connections(self.port), timeout=NODE_SECONDS)
        except ServerDied:
            if not restarts:
                raise
            self.launch()
            self.wait_started(restarts=restarts - 1)

    def startup_probe(self) -> int:
        """The HTTP status of the startup probe."""
        probe = self.pod.manifest.container("rabbitmq")["startupProbe"]["httpGet"]
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=5)
        try:
            connection.request("GET", probe["path"])
            return connection.getresponse().status
        finally:
            connection.close()

    def control(self, program: str, *arguments: str) -> str:
        """Run one of the command-line tools in the pod, as an operator would; fails when it does."""
        done = self.pod.execute("rabbitmq", program, *arguments)
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """Stop as the kubelet does: the preStop hook, then SIGTERM."""
        hook = self.pod.manifest.container("rabbitmq")["lifecycle"]["preStop"]["exec"]["command"]
        folder = self.pod.volume("config")
        done = self.pod.execute("rabbitmq", *[word.replace("/etc/rabbitmq", str(folder)) for word in hook])
        assert done.returncode == 0, done.stderr
        self.end()

    def end(self) -> None:
        """SIGTERM alone."""
        if self.process is not None:
            self.process.stop(signal.SIGTERM, timeout=60)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()

    def lose_disk(self) -> None:
        """The volume is gone; the next pod gets an empty one."""
        shutil.rmtree(self.pod.volume("data"))

    def lists_on_disk(self, queue: str) -> bool:
        """Whether a quorum queue declared here survives SIGKILL to all nodes."""
        lists = self.pod.volume("data").glob("*/quorum/*/names.dets")
        return any(f"bobrai_{queue}".encode() in file.read_bytes() for file in lists)

    def management(self, user: str = "bobrai", password: str = AWKWARD) -> Management:
        """The management API, as this user."""
        return Management(f"http://{quote(user)}:{quote(password, safe='')}@127.0.0.1:{self.management_port}")


class Cluster:
    """All nodes of the StatefulSet."""

    def __init__(self, run: RunFolder, values: Mapping[str, Any] | None = None) -> None:
        self.rendered = render(values)
        count = self.rendered.one("StatefulSet", NAME).spec["replicas"]
        # an epmd of its own: names are as rendered, and several processes of a run may each have a cluster
        epmd_port = discovery.epmd_port(run)
        self.nodes = [Node(run, self.rendered, number, epmd_port) for number in range(count)]

    def start(self) -> None:
        """All at once, as with podManagementPolicy Parallel."""
        for node in self.nodes:
            node.prepare(self.nodes)
            node.launch()
        for node in self.nodes:
            node.wait_started()

    def running(self, node: Node) -> list[str]:
        """The nodes that one of them sees running."""
        return node.management().running_nodes()

    def wait_whole(self) -> None:
        """Wait until each sees all running."""
        everyone = sorted(node.node_name for node in self.nodes)
        for node in self.nodes:
            eventually_sync(
                lambda node=node: sorted(self.running(node)) == everyone,  # type: ignore[misc]
                NODE_SECONDS,
                message=f"{node.node_name} sees all",
            )

    def kill(self) -> None:
        """SIGKILL to all."""
        for node in self.nodes:
            node.kill()


@contextmanager
def started(run: RunFolder, values: Mapping[str, Any] | None = None) -> Iterator[Cluster]:
    """A cluster that formed itself from empty volumes, for the block."""
    cluster = Cluster(run, values)
    try:
        cluster.start()
        cluster.wait_whole()
        yield cluster
    finally:
        cluster.kill()


def _on_loopback(plugin: str, port: int) -> str:
    return f"{plugin}.tcp.ip = 127.0.0.1\n{plugin}.tcp.port = {port}"
