"""The Grafana dashboards of charts/bobrai/dashboards, as Python: `make docs` writes them, `make check` compares.

In: the metric catalogue. Out: JSON that Grafana imports as it is. `promql.py` makes queries, `model.py` panels and
dashboards; one file per dashboard says what it shows: `overview.py`, `queues.py`, `workers.py`, `api.py`,
`data_plane.py`. `__main__.py` writes them.
"""

from tests.observe.dashboards import api, data_plane, overview, queues, workers

ALL = (overview.DASHBOARD, queues.DASHBOARD, workers.DASHBOARD, api.DASHBOARD, data_plane.DASHBOARD)
