"""Queries, built from the metric catalogue, so that a name or label that does not exist fails here.

Every selector is narrowed to the chosen namespaces, and to the chosen queues and types where a metric has these labels.
"""

import re

from bobrai.telemetry.declaring import Declared
from bobrai.telemetry.metrics import CATALOGUE

# What else is scraped: the prefix of its metrics, and who exports them.
EXPORTERS = {
    "rabbitmq_": "rabbitmq_prometheus",
    "pgbouncer_": "prometheuscommunity/pgbouncer-exporter",
    "pg_": "prometheuscommunity/postgres-exporter",
    "kubelet_volume_stats_": "the kubelet",
    "process_": "prometheus-client, in every process of bobrAI",
}
NAMESPACE = 'namespace=~"$namespace"'
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def declared(metric: str) -> Declared | None:
    """What the catalogue says of a metric or of a histogram's series; None for an exporter's; raises LookupError."""
    base = metric if metric in CATALOGUE else _SUFFIX.sub("", metric)
    if base in CATALOGUE:
        if metric != base and CATALOGUE[base].kind != "histogram":
            raise LookupError(f"{base} is no histogram, so it has no {metric}")
        return CATALOGUE[base]
    if metric.startswith("bobrai_") or not metric.startswith(tuple(EXPORTERS)):
        raise LookupError(f"{metric} is neither in the catalogue nor from an exporter that we know")
    return None


def select(metric: str, **matchers: str) -> str:
    """A selector; a matcher's value is compared as it is, or as a pattern when it starts with `~` or `!~`."""
    found = declared(metric)
    parts = [NAMESPACE]
    if found is not None:
        if unknown := set(matchers) - set(found.labels):
            raise LookupError(f"{metric} has no label {unknown}")
        parts += [f'{label}=~"${label}"' for label in ("queue", "type") if label in found.labels]
    elif metric.startswith("rabbitmq_detailed_queue"):
        parts.append('queue=~"(.*[.])?$queue"')  # RabbitMQ's names begin with a prefix that is a setting
    for label, value in matchers.items():
        operator, text = re.match(r"(!?~)?(.*)", value).groups()  # type: ignore[union-attr]
        parts.append(f'{label}{ {None: "=", "~": "=~", "!~": "!~"}[operator] }"{text}"')
    return f"{metric}{{{','.join(parts)}}}"


def _grouped(function: str, by: tuple[str, ...], inner: str) -> str:
    return f"{function} by ({', '.join(by)}) ({inner})" if by else f"{function}({inner})"


def total(metric: str, *by: str, function: str = "sum", **matchers: str) -> str:
    """A gauge, added up over processes."""
    return _grouped(function, by, select(metric, **matchers))


def rate(metric: str, *by: str, function: str = "sum", **matchers: str) -> str:
    """A counter's growth per second."""
    return _grouped(function, by, f"rate({select(metric, **matchers)}[$__rate_interval])")


def once(metric: str, *by: str, function: str = "sum", **matchers: str) -> str:
    """A figure of the whole installation: the same from whoever shows it, so it is never added up over processes."""
    found = declared(metric)
    if found is None or not found.once:
        raise LookupError(f"{metric} is exported by every process")
    inner = _grouped("max", ("namespace", *found.labels), select(metric, **matchers))
    return _grouped(function, by, inner)


def quantile(q: float, histogram: str, *by: str, **matchers: str) -> str:
    """A quantile of a histogram over the chosen interval."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', 'le', *by, **matchers)})"


def known(query: str) -> str:
    """The query without what is no number, as a quantile is while nothing happens."""
    return f"{query} >= 0"


def mean(histogram: str, *by: str, **matchers: str) -> str:
    """The mean of a histogram's observations; nothing where there were none."""
    return f"{rate(f'{histogram}_sum', *by, **matchers)} / ({rate(f'{histogram}_count', *by, **matchers)} > 0)"


def share(part: str, whole: str) -> str:
    """A part of a whole; 0 when the whole is 0 or the part was never seen, and nothing when the whole is unknown."""
    return f"{part} / ({whole} > 0) or 0 * {whole}"


def of(process: str, query: str) -> str:
    """Only the pods of one kind of process; the query is grouped by namespace and pod."""
    return f"{query} and on (namespace, pod) {select('bobrai_build_info', process=process)}"


def or_zero(query: str, scraped: str = "bobrai_build_info", **labels: str) -> str:
    """0 where the query has no series although its source is scraped: labelled counters begin with an event."""
    zero = f"0 * max({select(scraped)})"
    for label, value in labels.items():
        zero = f'label_replace({zero}, "{label}", "{value}", "", "")'
    return f"{query} or on() {zero}"
