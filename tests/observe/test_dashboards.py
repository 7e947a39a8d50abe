"""Every query of every dashboard, asked of a real Prometheus that scrapes a loaded installation.

In: the JSON files that operators import, not the Python that makes them. An empty panel or a refused query fails.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.observe import files, traffic
from tests.observe.files import Asked
from tests.observe.installation import NAMESPACE, Installation
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
OFFERED = {
    "namespace": {NAMESPACE},
    "queue": {queue for _, queue in traffic.KINDS},
    "type": {kind for kind, _ in traffic.KINDS},
}
SCHEDULED = 37
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

    def exemplars(self, query: Asked, chosen: dict[str, str]) -> list[dict[str, Any]]:
        """The dots that a panel would show."""
        return self.prometheus.exemplars(query.asked(chosen), self.ended - self.began, self.ended)


@pytest.fixture(scope="module")
def loaded(run_folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One installation for all questions: it runs, and one worker dies while it does."""
    servers = Servers(run_folder)
    folder: Path = tmp_path_factory.mktemp("observe")
    installation = Installation(servers, Processes(run_folder, folder), folder)
    with installation.started() as prometheus:
        eventually_sync(prometheus.is_ready, 20, message="Prometheus is ready")
        began = time.time()
        with traffic.flowing(installation.api.port or 0, installation.token):
            traffic.schedule(installation.api.port or 0, SCHEDULED)
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


def test_panels_by_queue_and_type_show_the_chosen_ones_alone(loaded: Loaded) -> None:
    strange = []
    for query in files.queries():
        for label in {"queue", "type"} & set(re.findall(r"\$(\w+)", query.promql)):
            wrong = {label: "no-such-name"}
            # counters that may not have begun yet say 0 instead of nothing
            strange += [f"{label}: {query}" for value in loaded.values(query, EVERYTHING | wrong) if value]
    assert strange == []


def test_variables_offer_what_there_is(loaded: Loaded) -> None:
    for name, dashboard in files.dashboards().items():
        for variable in dashboard["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found is not None, (name, variable)
            offered = loaded.prometheus.label_values(found[2], files.substitute(found[1], EVERYTHING))
            assert set(offered) >= OFFERED[variable["name"]], (name, variable["name"])


def test_single_tasks_lead_to_their_traces(loaded: Loaded) -> None:
    for query in files.queries():
        if query.exemplar:
            found = loaded.exemplars(query, EVERYTHING)
            assert found, query
            assert all(re.fullmatch("[0-9a-f]{32}", each["labels"]["trace_id"]) for each in found), query


def test_who_is_refused_or_throttled_is_seen_with_the_reason(loaded: Loaded) -> None:
    offered = loaded.prometheus.label_values
    assert set(offered("reason", "bobrai_access_refused_total")) >= {"missing", "unknown", "signature"}
    assert set(offered("kind", "bobrai_access_throttled_total")) == {"refused"}
    assert set(offered("issuer", "bobrai_oidc_keys_age_seconds")) == {traffic.ISSUER}


def test_two_dispatchers_do_not_count_anything_twice(loaded: Loaded) -> None:
    (waiting,) = [query for query in files.queries() if query.panel == "Waiting for a moment"]
    scheduled = EVERYTHING | {"queue": traffic.SCHEDULED_QUEUE}
    assert max(loaded.values(waiting, scheduled)) == SCHEDULED


def test_shares_lie_between_nothing_and_everything(loaded: Loaded) -> None:
    for query in files.queries():
        if query.unit == "percentunit":
            values = loaded.values(query, EVERYTHING)
            assert 0 <= min(values) <= max(values) <= 1, query


def test_a_query_without_an_answer_is_noticed(loaded: Loaded) -> None:
    assert loaded.values(Asked("", "", "bobrai_no_such_metric"), EVERYTHING) == []
    assert loaded.values(Asked("", "", "0 / vector(0)"), EVERYTHING) == []
    with pytest.raises(QueryFailed, match="parse error"):
        loaded.values(Asked("", "", "sum("), EVERYTHING)
