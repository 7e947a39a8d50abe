"""Every query of every dashboard, asked of a real Prometheus that scrapes a loaded installation.

In: the JSON files that operators import, not the Python that makes them. An empty panel or a refused query fails.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observe import files, traffic
from tests.observe.files import Asked
from tests.observe.installation import NAMESPACE, QUEUES, Installation
from tests.observe.prometheus import Prometheus, QueryFailed
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.run_folder import RunFolder
from tests.support.servers import Servers

pytestmark = [pytest.mark.observe, pytest.mark.timeout(180)]

LOAD_SECONDS = 25.0
EVERYTHING = {"namespace": ".*", "queue": ".*", "type": ".*"}
# as Grafana writes several chosen values, and one
CHOSEN = {
    "namespace": f"({NAMESPACE}|elsewhere)",
    "queue": "(default|media|reports)",
    "type": "(mail|charge|thumbnail|report)",
}
ELSEWHERE = {**EVERYTHING, "namespace": "elsewhere"}


class Loaded:
    """An installation that was under load, and the Prometheus that watched it."""

    def __init__(self, prometheus: Prometheus, installation: Installation, began: float) -> None:
        self.prometheus = prometheus
        self.installation = installation
        self.began = began
        self.ended = time.time()

    def values(self, query: Asked, chosen: dict[str, str]) -> list[float]:
        """What a panel would show for these choices; raises `QueryFailed`."""
        return self.prometheus.values(query.asked(chosen), self.ended - self.began, self.ended)


@pytest.fixture(scope="module")
def loaded(run_folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One installation for all questions: it runs, and one worker dies while it does."""
    servers = Servers(run_folder)
    folder: Path = tmp_path_factory.mktemp("observe")
    installation = Installation(servers, Processes(run_folder, folder), folder)
    with installation.started() as prometheus:
        eventually_sync(prometheus.is_ready, 20, message="Prometheus is ready")
        began = time.time()
        with traffic.flowing(installation.api.port or 0):
            installation.workers[-1].kill()
            installation.add_worker()
            eventually_sync(lambda: time.time() - began > LOAD_SECONDS, LOAD_SECONDS + 10, message="load went on")
            yield Loaded(prometheus, installation, began)
    servers.close()


def test_prometheus_scrapes_every_part(loaded: Loaded) -> None:
    down = [each for each in loaded.prometheus.targets_down() if "worker-1" not in each]  # that one was killed
    assert down == []


@pytest.mark.parametrize("chosen", [EVERYTHING, CHOSEN], ids=["all", "chosen"])
def test_no_panel_is_empty(loaded: Loaded, chosen: dict[str, str]) -> None:
    faults = []
    for query in files.queries():
        try:
            if not loaded.values(query, chosen):
                faults.append(f"empty: {query}")
        except QueryFailed as error:
            faults.append(f"refused: {query}\n  {error}")
    assert not faults, "\n".join(faults)


def test_no_panel_shows_another_namespace(loaded: Loaded) -> None:
    strange = [str(query) for query in files.queries() if loaded.values(query, ELSEWHERE)]
    assert strange == []
