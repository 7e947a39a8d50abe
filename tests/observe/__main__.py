"""`make observe`: a loaded bobrAI to look at in Prometheus, and in Grafana where Docker can have it, until Ctrl-C.

Every part is real and runs on this machine alone; `installation.py` says which, `traffic.py` what the clients do.
"""

import argparse
import contextlib
import signal
import sys
import threading

from tests.observe import grafana, traffic
from tests.observe.installation import Installation
from tests.observe.programs import ProgramMissing
from tests.support.discovery import ServerMissing
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.reaper import Reaper
from tests.support.run_folder import RunFolder
from tests.support.servers import Servers

START_SECONDS = 20.0


def _look(run: RunFolder, stop: threading.Event, seconds: float | None) -> None:
    """Start everything, say where it is, and keep the load flowing until it is enough."""
    servers = Servers(run)
    folder = run.folder("observe")
    installation = Installation(servers, Processes(run, folder), folder)
    print("starting PostgreSQL, PgBouncer, RabbitMQ, bobrAI and Prometheus …", flush=True)
    with installation.started() as prometheus:
        eventually_sync(prometheus.is_ready, START_SECONDS, message="Prometheus is ready")
        port = installation.api.port or 0
        with traffic.flowing(port, installation.token):
            traffic.schedule(port, 40)
            print(f"API         http://127.0.0.1:{port}/docs")
            print(f"Prometheus  {prometheus.url}/targets and {prometheus.url}/alerts", flush=True)
            try:
                print(f"Grafana     {grafana.start(run, prometheus.url)}/dashboards")
            except ProgramMissing as missing:
                print(
                    f"Grafana     none here ({missing}); import charts/bobrai/dashboards/*.json into one that you have"
                )
            print("tasks are flowing; Ctrl-C ends everything", flush=True)
            stop.wait(seconds)
    servers.close()


def main() -> int:
    """Return the exit code: 0 when it was looked at, 1 when a server is missing."""
    parser = argparse.ArgumentParser(prog="make observe", description=__doc__)
    parser.add_argument("--seconds", type=float, help="end after so long instead of at Ctrl-C")
    seconds = parser.parse_args().seconds
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run = RunFolder.create()
    reaper = Reaper(run)
    with contextlib.ExitStack() as stack:
        stack.callback(reaper.finish)
        try:
            _look(run, stop, seconds)
        except (ServerMissing, ProgramMissing) as missing:
            print(missing, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
