"""Three clustered RabbitMQ nodes that fault tests kill and start one by one.

The cluster is shared by the run, one test at a time: the fixture holds a lock, and hands over nodes that all run.
"""

from typing import Any, Self

from tests.support.rabbitmq import RabbitNode, VirtualHost, wait_all_joined
from tests.support.rabbitmq_management import Management
from tests.support.run_folder import RunFolder

NODES = 3


class RabbitCluster(VirtualHost):
    """The nodes, and this test's own virtual host on them."""

    def __init__(self, nodes: list[RabbitNode]) -> None:
        self.nodes = nodes
        super().__init__(nodes[0].url("/"), self._of_a_running_node, prefix="cluster-test")

    @classmethod
    def attach(cls, run: RunFolder, descriptions: list[dict[str, Any]]) -> Self:
        """A handle to the cluster that one of the worker processes started."""
        return cls([RabbitNode(run, description) for description in descriptions])

    @property
    def urls(self) -> list[str]:
        """One AMQP address per node, for this test's virtual host."""
        return [node.url(self.name) for node in self.nodes]

    @property
    def settings_url(self) -> str:
        """All addresses in one value, as BOBRAI_RABBITMQ_URL takes them."""
        return ",".join(self.urls)

    def _of_a_running_node(self) -> Management:
        running = [node for node in self.nodes if node.is_running()]
        return (running or self.nodes)[0].management

    def queue_is_on_disk(self, queue: str) -> bool:
        """Whether a queue survives SIGKILL to all nodes, which within a second or so of its declaration it may not."""
        return all(node.queue_is_on_disk(self.name, queue) for node in self.nodes)

    def heal(self) -> None:
        """Bring every node back and wait until all see each other."""
        for node in self.nodes:
            node.thaw()
            if not node.is_running():
                node.launch()
        for node in self.nodes:
            node.wait_ready()
        wait_all_joined(self.nodes)

    def restart_all(self) -> None:
        """Kill all nodes at once, then start them: the broker as a whole went away and came back."""
        self.kill_all()
        self.heal()

    def kill_all(self) -> None:
        """SIGKILL to every node."""
        for node in self.nodes:
            node.kill()
