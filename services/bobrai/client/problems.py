"""Answers that are no success, as errors: the class that a problem's kind has, or that its status has.

In: an answer. Out: an ApiError, or a BadAnswer for what the API does not say.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from bobrai.client.errors import (
    ApiError,
    BadAnswer,
    BadRequest,
    Conflict,
    NotFound,
    Refused,
    ServerError,
    TooMany,
    Unavailable,
)
from bobrai.client.models import Problem

_MOST_SHOWN: Final = 200  # characters of a foreign answer
_GROUPS: Final[Mapping[int, type[ApiError]]] = {
    401: Refused, 403: Refused, 404: NotFound, 409: Conflict, 429: TooMany, 502: Unavailable, 503: Unavailable,
    504: Unavailable,
}  # fmt: skip


def _classes(group: type[ApiError]) -> Iterator[type[ApiError]]:
    yield group
    for each in group.__subclasses__():
        yield from _classes(each)


BY_KIND: Final[Mapping[str, type[ApiError]]] = {each.KIND: each for each in _classes(ApiError) if each.KIND}


def of_answer(status: int, content: bytes, headers: Mapping[str, str]) -> ApiError | BadAnswer:
    """Return the error that an answer is; the names of the headers are in lower case."""
    if not headers.get("content-type", "").startswith("application/problem+json"):
        return BadAnswer(_foreign(status, content), status)
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except msgspec.DecodeError:
        return BadAnswer(_foreign(status, content), status)
    problem.status = status
    group = _GROUPS.get(status, BadRequest if status < 500 else ServerError)
    return BY_KIND.get(problem.kind, group)(problem, _seconds(headers.get("retry-after")))


def _foreign(status: int, content: bytes) -> str:
    text = " ".join(content[:_MOST_SHOWN].decode(errors="replace").split())
    return f"HTTP {status} that is not an answer of bobrAI's API, from a proxy or a wrong URL: {text or '(no content)'}"


def _seconds(text: str | None) -> float | None:
    """Return what Retry-After says, as seconds or as a date, in seconds from now."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo is not None else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which an answer may be asked for again; None: it does not say."""
    return _seconds(headers.get("retry-after"))
