"""One RabbitMQ node as it comes out of the package: no plugins, no settings but where it listens and keeps its data.

The tests' own node (`tests/support/rabbitmq.py`) reports its queues five times a second, and a round would pay for it.
"""

import signal
import socket
from urllib.parse import quote

from tests.support import discovery
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess

START_SECONDS = 60.0
CONFIGURATION = "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\nlog.file.level = warning\n"


class RabbitMQ:
    """A single node, started at once; it ends with the run's reaper."""

    def __init__(self, run: RunFolder) -> None:
        self.port = run.free_port()
        installation = discovery.find(run, "rabbitmq")
        folder = run.folder("rabbitmq-bench")
        (folder / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port))
        (folder / "enabled_plugins").write_text("[].\n")
        epmd_port = run.free_port()
        run.started(epmd_port=epmd_port)
        self.version = installation.version
        self._process = ServerProcess(run, installation, folder, stop_signal=signal.SIGKILL)
        self._process.start(
            "rabbitmq-server",
            environment={
                "HOME": str(folder),
                "RUNNING_UNDER_SYSTEMD": "true",  # the node replaces the shell, so that its pid is the one we know
                "ERL_EPMD_PORT": str(epmd_port),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "RABBITMQ_NODENAME": f"bench-{epmd_port}@localhost",
                "RABBITMQ_DIST_PORT": str(run.free_port()),
                "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
                "RABBITMQ_MNESIA_BASE": str(folder / "data"),
                "RABBITMQ_LOG_BASE": str(folder / "log"),
            },
        )
        self._process.wait_ready(self._answers, timeout=START_SECONDS)

    @property
    def url(self) -> str:
        """The AMQP address of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote('/', safe='')}"

    @property
    def pid(self) -> int:
        """The Erlang machine's process id."""
        process = self._process.process()
        if process is None:
            raise RuntimeError(f"RabbitMQ has ended:\n{self._process.log_tail()}")
        return process.pid

    def _answers(self) -> bool:
        """Whether it begins an AMQP handshake."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False
