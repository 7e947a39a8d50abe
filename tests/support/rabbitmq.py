"""RabbitMQ for tests: one node, or a cluster of them, and a virtual host of its own for every test.

The nodes run beside each other on this machine: own node names, ports, data folders and port mapper. Booting is the
price of the first test that needs them (3 s for one node); a virtual host costs about 20 ms.
"""

import itertools
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tests.support import discovery
from tests.support.certificates import Pair
from tests.support.eventually import eventually_sync
from tests.support.rabbitmq_management import Management, QueueCounts
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess

HOST = "127.0.0.1"
NODE_SECONDS = 60.0

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{amqp_port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
management.rates_mode = none
loopback_users = none
log.console = false
log.file.level = info
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.6
raft.wal_max_size_bytes = 16777216
collect_statistics_interval = 500
"""
TLS = """\
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.certfile = {folder}/server.crt
ssl_options.keyfile = {folder}/server.key
"""
TLS_CLIENTS = """\
ssl_options.cacertfile = {folder}/clients.crt
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
# queues report their counts, and connections are listed, every 5 s by default: too old for a test to wait for
SAMPLES = ",".join(f"{{{kind},[{{60,1}}]}}" for kind in ("global", "basic", "detailed"))
ERLANG_OPTIONS = f"-rabbit quorum_tick_interval 200 -rabbitmq_management_agent sample_retention_policies [{SAMPLES}]"


class RabbitNode:
    """One node; any worker process may hold a handle to it."""

    def __init__(self, run: RunFolder, description: dict[str, Any]) -> None:
        self.name: str = description["name"]
        self.host = HOST
        self.port: int = description["amqp_port"]
        self.metrics_port: int | None = description.get("metrics_port")
        self.tls_port: int | None = description.get("tls_port")
        self._described = description
        self._folder = Path(description["folder"])
        installation = discovery.find(run, "rabbitmq")
        self._process = ServerProcess(run, installation, self._folder, stop_signal=signal.SIGKILL)
        self.management = Management(f"http://guest:guest@{HOST}:{description['management_port']}")

    def launch(self) -> None:
        """Start the node without waiting for it: the nodes of a cluster must boot together."""
        described = self._described
        self._process.start(
            "rabbitmq-server",
            environment={
                "HOME": str(self._folder),
                "RUNNING_UNDER_SYSTEMD": "true",  # the node replaces the shell, so that its pid is the one we know
                "ERL_EPMD_PORT": str(described["epmd_port"]),
                "ERL_EPMD_ADDRESS": HOST,
                "RABBITMQ_NODENAME": self.name,
                "RABBITMQ_DIST_PORT": str(described["distribution_port"]),
                "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
                "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
                "RABBITMQ_LOG_BASE": str(self._folder / "log"),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {described['cookie']} {ERLANG_OPTIONS}",
            },
        )

    def wait_ready(self) -> None:
        """Wait until it serves AMQP and its management API answers."""
        self._process.wait_ready(self.answers, timeout=NODE_SECONDS)

    def answers(self) -> bool:
        """Whether the node says that it runs."""
        try:
            return self.name in self.management.running_nodes()
        except OSError:
            return False

    def start(self) -> None:
        """Start the node and wait until it serves. In a cluster without a majority, use `launch`."""
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()

    def stop(self) -> None:
        """An orderly shutdown."""
        self._process.stop(signal.SIGTERM, timeout=30)

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.send_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._process.send_to_all(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process.is_running()

    def queue_is_on_disk(self, virtual_host: str, queue: str) -> bool:
        """Whether a quorum queue declared here survives SIGKILL: the broker lists it on disk a little later."""
        lists = (self._folder / "data").glob("*/quorum/*/names.dets")
        return any(f"{virtual_host}_{queue}".encode() in file.read_bytes() for file in lists)

    @property
    def version(self) -> str:
        """The broker's version, such as 4.3.6."""
        return self._process.installation.version

    def url(self, virtual_host: str) -> str:
        """The AMQP address of a virtual host on this node."""
        return f"amqp://guest:guest@{self.host}:{self.port}/{quote(virtual_host, safe='')}"

    def tls_url(self, host: str) -> str:
        """The AMQP address of its default virtual host under TLS, by a name of this machine."""
        return f"amqps://guest:guest@{host}:{self.tls_port}/%2F"

    def show(self, pair: Pair) -> None:
        """Let it serve TLS with this certificate after its next start."""
        for name, source in (("server.crt", pair.certificate), ("server.key", pair.key)):
            (self._folder / name).write_bytes(source.read_bytes())
            (self._folder / name).chmod(0o644)

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._process.log_tail()


def start_nodes(
    run: RunFolder,
    name: str,
    count: int,
    *,
    metrics: bool = False,
    pair: Pair | None = None,
    clients: Path | None = None,
) -> list[dict[str, Any]]:
    """Start `count` fresh, clustered nodes and return descriptions for `RabbitNode`; raises `ServerMissing`.

    With `metrics` each serves Prometheus too, on its `metrics_port`; with a pair, TLS on its `tls_port`, for `clients`
    with a certificate of these authorities if that is given.
    """
    discovery.find(run, "rabbitmq")
    epmd_port, cookie = discovery.erlang_port_mapper(run), f"{run.path.name}-{name}"
    names = [f"{name}{number}@localhost" for number in range(1, count + 1)]
    descriptions = []
    for node_name in names:
        folder = run.folder(f"rabbitmq-{node_name.partition('@')[0]}")
        plugins = ["rabbitmq_management", *(["rabbitmq_prometheus"] if metrics else [])]
        (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        ports = {part: run.free_port() for part in ("amqp_port", "management_port", "distribution_port")}
        lines = CONFIGURATION.format(**ports)
        if metrics:
            ports["metrics_port"] = run.free_port()
            lines += f"prometheus.tcp.ip = {HOST}\nprometheus.tcp.port = {ports['metrics_port']}\n"
        if pair is not None:
            ports["tls_port"] = run.free_port()
            lines += TLS.format(folder=folder, tls_port=ports["tls_port"])
            if clients is not None:
                (folder / "clients.crt").write_bytes(clients.read_bytes())
                lines += TLS_CLIENTS.format(folder=folder)
        if count > 1:
            lines += "cluster_formation.peer_discovery_backend = classic_config\n"
            lines += "".join(f"cluster_formation.classic_config.nodes.{i} = {n}\n" for i, n in enumerate(names, 1))
        (folder / "rabbitmq.conf").write_text(lines)
        (folder / "enabled_plugins").chmod(0o666)
        descriptions.append(
            {"name": node_name, "folder": str(folder), "epmd_port": epmd_port, "cookie": cookie, **ports}
        )
    nodes = [RabbitNode(run, description) for description in descriptions]
    for node in nodes:
        if pair is not None:
            node.show(pair)
        node.launch()
    for node in nodes:
        node.wait_ready()
    wait_all_joined(nodes)
    return descriptions


def wait_all_joined(nodes: Sequence[RabbitNode]) -> None:
    """Wait until every node sees all nodes running."""
    everyone = sorted(node.name for node in nodes)
    for node in nodes:
        eventually_sync(
            lambda node=node: node.management.running_nodes() == everyone,  # type: ignore[misc]
            NODE_SECONDS,
            message=f"{node.name} sees {len(everyone)} running nodes",
        )


class VirtualHost:
    """One test's own virtual host on a broker."""

    _numbers = itertools.count(1)

    def __init__(self, url: str, management: Callable[[], Management], *, prefix: str = "test") -> None:
        self.name = f"{prefix}-{os.getpid()}-{next(self._numbers)}"
        self.url = urlunsplit(urlsplit(url)._replace(path=f"/{quote(self.name, safe='')}"))
        self._management = management

    @property
    def management(self) -> Management:
        """The management API of a node that runs now."""
        return self._management()

    def create(self) -> None:
        """Make it on the broker."""
        self.management.create_virtual_host(self.name)

    def delete(self) -> None:
        """Delete it with its queues and connections."""
        self.management.delete_virtual_host(self.name)

    def queues(self) -> dict[str, QueueCounts]:
        """All its queues with their counts; see `QueueCounts` for their age."""
        return self.management.queues(self.name)

    def queue(self, name: str) -> QueueCounts:
        """The counts of one queue; raises LookupError when there is none of that name."""
        return self.queues()[name]

    def is_empty(self) -> bool:
        """Whether no queue holds a message, ready or unacked."""
        return all(queue.total == 0 for queue in self.queues().values())

    def purge(self, queue: str | None = None) -> None:
        """Drop the ready messages of one queue, or of all."""
        for name in [queue] if queue else list(self.queues()):
            self.management.purge(self.name, name)

    def close_connections(self) -> int:
        """Cut every client connection from the broker's side; returns how many there were."""
        return self.management.close_connections(self.name)
