"""The dashboards as files: what is in them, and each query as Grafana would ask it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "charts" / "bobrai" / "dashboards"
RATE_INTERVAL = "8s"


def dashboards() -> dict[str, dict[str, Any]]:
    """Each file's content, by its name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that is not a row's heading."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


@dataclass(frozen=True)
class Asked:
    """One query of one panel."""

    file: str
    panel: str
    promql: str
    exemplar: bool = False
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.panel}: {self.promql}"

    def asked(self, chosen: dict[str, str]) -> str:
        """The query with its variables filled in, as Grafana sends it."""
        return substitute(self.promql, chosen)


def substitute(promql: str, chosen: dict[str, str]) -> str:
    """Fill in a query's variables; raises LookupError for one that no dashboard offers."""
    known = {**chosen, "__rate_interval": RATE_INTERVAL}
    return re.sub(r"\$(\w+)", lambda found: known[found[1]], promql)


def queries() -> Iterator[Asked]:
    """Every query of every panel."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                unit = panel["fieldConfig"]["defaults"]["unit"]
                yield Asked(name, panel["title"], target["expr"], target["exemplar"], unit)
