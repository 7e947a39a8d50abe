"""How metrics are shown: the text of ``/metrics`` with what a process exports, and the table of docs/metrics.md.

In: the catalogue that ``metrics`` declares, and whatever a handler's libraries register. Out: text for Prometheus.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bobrai.telemetry import rendering
from bobrai.telemetry.declaring import CATALOGUE, EVERY
from bobrai.telemetry.logger import BoundLogger
from bobrai.telemetry.metrics import BUILD_INFO

log: Final = BoundLogger("telemetry.exposition")


class _Own(Collector):
    """What this process exports when nobody else's metrics are asked for."""

    def __init__(self) -> None:
        declared = [each.collector for each in CATALOGUE.values()]
        self.collectors: list[Collector] = [PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, *declared]
        self.are_alone = False

    def collect(self) -> Iterable[Metric]:
        """Return the families of all."""
        for collector in self.collectors:
            yield from collector.collect()


_OWN: Final = _Own()


def export_as(process: str, version: str) -> None:
    """Show only what this process exports, from now on: one of EVERY, ``dev`` (all in one), or another command."""
    BUILD_INFO.labels(version, process).set(1)
    if process == "dev":
        return
    for declared in CATALOGUE.values():
        if declared.by != EVERY and process not in declared.by:
            REGISTRY.unregister(declared.collector)
            _OWN.collectors.remove(declared.collector)


def table() -> str:
    """Return the catalogue as a Markdown table."""
    lines = ["| metric | kind | labels | exported by | meaning |", "|---|---|---|---|---|"]
    for declared in CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        by = "all" if declared.by == EVERY else ", ".join(declared.by)
        by = "one dispatcher at a time" if declared.once else by
        lines.append(f"| `{declared.name}` | {declared.kind} | {labels} | {by} | {declared.meaning} |")
    return "\n".join(lines)


def render(accept: str = "") -> tuple[bytes, str]:
    """Return the body and the content type of ``/metrics``, in the format that the Accept header asks for.

    Exemplars travel in OpenMetrics only. While a metric that somebody else has registered cannot be shown, none of
    theirs is.
    """
    encode, content_type = choose_encoder(accept)
    try:
        body = encode(REGISTRY)
    except BaseException as error:  # noqa: BLE001 - a handler's collector may do as it likes
        if not _OWN.are_alone:
            _OWN.are_alone = True
            log.warning("metrics.incomplete", error_type=rendering.type_of(error), stack=rendering.stack_of(error))
        return encode(_OWN), content_type
    _OWN.are_alone = False
    return body, content_type
