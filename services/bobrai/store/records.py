"""Domain values as columns and back: the encodings that several statements share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from bobrai.domain.access import Rate
from bobrai.domain.limiting import Bounds, Limits
from bobrai.domain.retry import Retry
from bobrai.domain.task import AttemptError, NewTask
from bobrai.domain.unique import Unique


@lru_cache(maxsize=1024)
def retry_text(retry: Retry) -> str:
    """Return a retry policy as JSON text, without what it does not say: each row holds it."""
    said = {name: value for name, value in msgspec.to_builtins(retry).items() if value is not None}
    return msgspec.json.encode(said).decode()


@lru_cache(maxsize=1024)
def retry_value(text: str) -> Retry:
    """Return the retry policy that JSON text says."""
    return msgspec.json.decode(text, type=Retry)


def unique_text(rule: Unique) -> str:
    """Return a rule of uniqueness as JSON text."""
    return msgspec.json.encode(rule.said()).decode()


def unique_value(text: str) -> Unique:
    """Return the rule of uniqueness that JSON text says; raises msgspec.DecodeError."""
    said = msgspec.json.decode(text, type=dict[str, Any])
    try:
        return Unique.of(said)
    except ValueError as error:
        raise msgspec.ValidationError(str(error)) from error


def limits_text(limits: Limits | None) -> str | None:
    """Return limits as JSON text, without what they do not say; None for such that say nothing."""
    if limits is None or limits.is_empty:
        return None
    said = _bounds(limits)
    if (per_key := limits.per_key) is not None:
        said["per_key"] = {"key": per_key.key, **_bounds(per_key)}
        if per_key.weights:
            said["per_key"]["weights"] = dict(per_key.weights)
    return msgspec.json.encode(said).decode()


def _bounds(bounds: Bounds) -> dict[str, Any]:
    rate = None if bounds.rate is None else str(Rate.parse(bounds.rate))
    said = {"concurrency": bounds.concurrency, "rate": rate, "burst": bounds.burst}
    return {name: value for name, value in said.items() if value is not None}


@lru_cache(maxsize=1024)
def limits_value(text: str) -> Limits:
    """Return the limits that JSON text says."""
    return msgspec.json.decode(text, type=Limits)


def error_text(error: AttemptError, attempt: int) -> str:
    """Return the entry of ``tasks.errors`` for a failed attempt, as JSON text that jsonb accepts.

    NUL and lone surrogates cannot be stored in jsonb: they become U+FFFD.
    """
    entry = {
        "attempt": attempt,
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "reason": error.reason,
    }
    clean = {key: _storable(value) if isinstance(value, str) else value for key, value in entry.items()}
    return msgspec.json.encode(clean).decode()


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _if_any(values: list[Any]) -> list[Any] | None:
    """Return nothing for a column of nothing: ``unnest`` fills it up, and nobody has to read it."""
    return values if any(value is not None for value in values) else None


def task_columns(tasks: Sequence[NewTask]) -> tuple[list[Any] | None, ...]:
    """Return new tasks as the sixteen arrays that ``submit`` takes."""
    return (
        [task.type for task in tasks],
        [task.queue for task in tasks],
        [task.priority for task in tasks],
        [task.payload for task in tasks],
        [task.retry.max_attempts for task in tasks],
        [retry_text(task.retry) for task in tasks],
        [task.timeout_seconds for task in tasks],
        [task.delay_seconds for task in tasks],
        [task.run_at for task in tasks],
        [task.request_id for task in tasks],
        [task.trace_context for task in tasks],
        [task.client_id for task in tasks],
        _if_any([task.deadline_seconds for task in tasks]),
        _if_any([task.deadline_at for task in tasks]),
        _if_any([task.expires_seconds for task in tasks]),
        _if_any([task.expires_at for task in tasks]),
    )
