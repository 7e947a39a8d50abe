"""The values of the metric: how many tasks of each queue are due or run.

In: a namespace, a metric's name and a label selector. Out: an ExternalMetricValueList. What is not known is an error
and never a number: the autoscaler then leaves the number of pods as it is, while it would take a zero for idleness.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from bobrai.domain.errors import Unavailable
from bobrai.external_metrics import selectors
from bobrai.external_metrics.documents import GROUP_VERSION, LIST_KIND, METRIC
from bobrai.external_metrics.status import Refused
from bobrai.store import backlogs
from bobrai.store.backlogs import Backlog
from bobrai.store.pool import Database

_ANSWER_SECONDS: Final = 3.0  # the autoscaler asks for one metric after the other, with few workers


class Values:
    """Reads values; only ``namespace`` has any."""

    def __init__(self, database: Database, namespace: str, stale_seconds: float) -> None:
        self._database = database
        self._namespace = namespace
        self._stale_seconds = stale_seconds

    async def read(self, namespace: str, metric: str, selector: str) -> dict[str, Any]:
        """Return the list; raises Refused.

        A queue without a row has no tasks and never had any, but its name may as well be misspelt: when no queue is
        left the answer is 404, because the autoscaler takes that for "unknown".
        """
        if metric != METRIC or namespace != self._namespace:
            raise Refused(404, f"the server could not find the metric {metric} for namespace {namespace}")
        try:
            wanted = selectors.parse(selector)
        except selectors.MalformedSelector as error:
            raise Refused(400, f"unable to parse the label selector {selector!r}: {error}") from error
        found = [backlog for backlog in await self._backlogs() if wanted.matches({"queue": backlog.queue})]
        if not found:
            raise Refused(404, f"no queue matches the label selector {selector!r}")
        try:
            backlogs.require_fresh(found, self._stale_seconds)
        except Unavailable as error:
            raise Refused(503, f"the backlog is unknown: {error}") from error
        return {
            "kind": LIST_KIND,
            "apiVersion": GROUP_VERSION,
            "metadata": {},
            "items": [_item(backlog) for backlog in found],
        }

    async def _backlogs(self) -> list[Backlog]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await backlogs.every(self._database)
        except (Unavailable, TimeoutError) as error:
            raise Refused(503, "the backlog is unknown: the database does not answer") from error


def _item(backlog: Backlog) -> dict[str, Any]:
    return {
        "metricName": METRIC,
        "metricLabels": {"queue": backlog.queue},
        "timestamp": _moment(backlog.measured_at),
        "value": str(backlog.tasks),
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
