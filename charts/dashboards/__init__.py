"""The Grafana dashboards of the chart, as Python: `make docs` writes bobrai/dashboards/*.json, `make check` compares.

In: the metric catalogue of `bobrai.telemetry`. Out: JSON that Grafana imports as it is and that the chart packs; this
package itself is not packed. `promql.py` makes queries, `model.py` panels and dashboards; one file per dashboard says
what it shows: `overview.py`, `queues.py`, `workers.py`, `api.py`, `data_plane.py`. `__main__.py` writes them.
tests/observe asks each query of a real Prometheus.

The classes of `model.py` are ours: `grafana-foundation-sdk` (0.0.21) would take more lines for the same panels, and
writes schema 42, which is newer than the Grafana 10.4 that we support.
"""

from charts.dashboards import api, data_plane, overview, queues, workers

ALL = (overview.DASHBOARD, queues.DASHBOARD, workers.DASHBOARD, api.DASHBOARD, data_plane.DASHBOARD)
