"""Panels, rows and dashboards as values, and the JSON that Grafana reads (schema 39: Grafana 10.4 and later).

Grafana's grid is 24 columns wide; panels flow from left to right in the order in which a row names them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

RUNBOOKS = "https://github.com/bobrai/bobrai/blob/main/docs/runbooks"
TAG = "bobrai"
COLUMNS = 24
SCHEMA = 39
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One query of a panel; `exemplar` shows single tasks or requests as dots that lead to their traces."""

    promql: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel; `good` says what good looks like, `warn` and `bad` where it ends."""

    title: str
    good: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8
    height: int = 8
    warn: float | None = None
    bad: float | None = None
    falling: bool = False
    """Low values are the bad ones."""
    stacked: bool = False
    most: float | None = None
    """The upper end of the axis."""
    least: float | None = 0
    runbook: str = ""
    """The alert whose runbook tells what to do."""
    decimals: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """Values that are shown as words."""
    empty: str = ""
    """What is shown while there is no value, where that is no fault."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard."""

    name: str
    query: str
    about: str


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `slug` is its file's name and, with a prefix, its uid for good."""

    slug: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    pauses: bool = False
    """Mark the times in which queues were paused."""

    @property
    def uid(self) -> str:
        """Under which links find it, whatever its title becomes."""
        return f"bobrai-{self.slug}"

    def panels(self) -> Iterator[Panel]:
        """All panels, in order."""
        for row in self.rows:
            yield from row.panels

    def to_json(self) -> Json:
        """What Grafana imports."""
        return {
            "uid": self.uid,
            "title": f"bobrAI / {self.title}",
            "description": self.about,
            "tags": [TAG],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "",
            "links": [_to_siblings()],
            "annotations": {"list": [_pauses()] if self.pauses else []},
            "templating": {"list": [_datasource_variable(), *(_variable(each) for each in self.variables)]},
            "panels": _laid_out(self.rows),
        }


NAMESPACES = Variable("namespace", "label_values(bobrai_build_info, namespace)", "Where bobrAI is installed.")
QUEUES = Variable(
    "queue",
    'label_values(bobrai_queue_tasks{namespace=~"$namespace"}, queue)',
    "Narrows the panels whose figures are kept by queue.",
)
TYPES = Variable(
    "type",
    'label_values(bobrai_tasks_submitted_total{namespace=~"$namespace",queue=~"$queue"}, type)',
    "Narrows the panels whose figures are kept by task type.",
)


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    panels: list[Json] = []
    y = 0
    for row in rows:
        panels.append(
            {
                "id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }
        )  # fmt: skip
        y += 1
        x = line = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line = 0, y + line, 0
            position = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append({"id": len(panels) + 1, "gridPos": position, **_panel(panel)})
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return panels


def _panel(panel: Panel) -> Json:
    runbook = {"title": f"Runbook: {panel.runbook}", "url": f"{RUNBOOKS}/{panel.runbook}.md", "targetBlank": True}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.good,
        "datasource": DATASOURCE,
        "links": [runbook] if panel.runbook else [],
        "targets": [_target(panel, query, number) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, query: Query, number: int) -> Json:
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.promql,
        "legendFormat": "{{le}}" if panel.kind == "heatmap" else query.legend or "__auto",
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "range": True,
        "instant": False,
        "exemplar": query.exemplar,
    }


def _field(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "thresholds": _thresholds(panel), "mappings": []}
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.empty:
        defaults["noValue"] = panel.empty
    if panel.labels:
        options = {value: {"text": text, "index": at} for at, (value, text) in enumerate(panel.labels.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.warn is not None or panel.bad is not None else "off"},
        }
    else:
        defaults["color"] = {"mode": "thresholds"}
    return defaults


def _thresholds(panel: Panel) -> Json:
    """Steps from good to bad, or from bad to good where low values are the bad ones."""
    limits = [(panel.warn, "orange"), (panel.bad, "red")]
    named = [(limit, colour) for limit, colour in limits if limit is not None]
    if panel.falling:
        # a step's colour holds from its value upwards
        ascending = sorted(named, key=lambda step: step[0])
        colours = [colour for _, colour in ascending] + ["green"]
        steps: list[Json] = [{"color": colours[0], "value": None}]
        steps += [{"color": colours[at + 1], "value": limit} for at, (limit, _) in enumerate(ascending)]
    else:
        steps = [{"color": "green", "value": None}]
        steps += [{"color": colour, "value": limit} for limit, colour in named]
    return {"mode": "absolute", "steps": steps}


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto",
        }  # fmt: skip
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
            "cellGap": 1, "filterValues": {"le": 1e-9}, "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": False}, "legend": {"show": True},
            "exemplars": {"color": "rgba(255,0,255,0.7)"}, "showValue": "never",
        }  # fmt: skip
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _datasource_variable() -> Json:
    return {
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "regex": "",
        "hide": 0, "refresh": 1, "multi": False, "includeAll": False, "options": [], "current": {},
    }  # fmt: skip


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name, "label": variable.name, "description": variable.about, "type": "query",
        "datasource": DATASOURCE, "definition": variable.query, "regex": "", "hide": 0, "sort": 1, "skipUrlSync": False,
        "query": {"query": variable.query, "refId": f"variable-{variable.name}"},
        "refresh": 2, "multi": True, "includeAll": True, "allValue": ".*", "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _to_siblings() -> Json:
    return {
        "title": "bobrAI", "type": "dashboards", "tags": [TAG], "asDropdown": True, "includeVars": True,
        "keepTime": True,
        "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
    }  # fmt: skip


def _pauses() -> Json:
    """Marks the times in which a queue was paused: a growing backlog is then no fault."""
    return {
        "name": "paused", "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": "yellow",
        "expr": 'max by (queue) (bobrai_queue_paused{namespace=~"$namespace",queue=~"$queue"}) == 1',
        "titleFormat": "paused", "textFormat": "queue {{queue}}", "step": "30s",
    }  # fmt: skip
