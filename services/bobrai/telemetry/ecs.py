"""The same lines in the field names of the Elastic Common Schema, so that Elastic takes them without a pipeline.

In: an event as `logs.py` prints it. Out: the event with ECS names; what the schema has no name for is under
``bobrai.``.
"""

import math
from collections.abc import MutableMapping
from typing import Any, Final

from bobrai.telemetry import rendering

VERSION: Final = "8.17.0"
# What every line says of itself besides its event; a field of somebody's that is called so is put under ``bobrai.``.
OURS: Final = frozenset(
    {"@timestamp", "log.level", "ecs.version", "event.dataset", "service.name", "service.type", "service.version"}
)
_NANOSECONDS: Final = 1_000_000_000
_NAMES: Final = {
    "module": "log.logger",
    "request_id": "http.request.id",
    "trace_id": "trace.id",
    "span_id": "span.id",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "error": "error.message",
    "error_type": "error.type",
    "exception": "error.stack_trace",
    "stack": "error.stack_trace",
    "host": "server.address",
    "port": "server.port",
    "reason": "event.reason",
}


def error(raised: BaseException) -> dict[str, str]:
    """Return the fields of ``error``."""
    return {
        "error.type": rendering.type_of(raised),
        "error.message": rendering.text(raised),
        "error.stack_trace": rendering.traceback_of(raised),
    }


class Fields:
    """Renames the fields of an event."""

    def __init__(self, version: str) -> None:
        self._version = version

    def __call__(self, event: MutableMapping[str, Any]) -> dict[str, Any]:
        """Return the event in ECS names, those that every line has first."""
        name = event.pop("event", "")
        process = event.pop("process", "")
        renamed: dict[str, Any] = {
            "@timestamp": event.pop("at"),
            "log.level": event.pop("level"),
            "message": name,
            "ecs.version": VERSION,
            "event.action": name,
            "event.dataset": f"bobrai.{process}",
            "service.name": f"bobrai-{process}",
            "service.type": "bobrai",
        }
        if self._version:
            renamed["service.version"] = self._version
        for key, value in event.items():
            if key == "seconds" and isinstance(value, int | float) and math.isfinite(value):
                renamed["event.duration"] = round(value * _NANOSECONDS)
            elif key == "status" and not isinstance(value, int):
                renamed["bobrai.status"] = value  # a task's, not a response's
            elif "." in key and key not in OURS:
                renamed[key] = value
            else:
                renamed[_NAMES.get(key, f"bobrai.{key}")] = value
        return renamed
