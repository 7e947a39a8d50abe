"""What clients get back of API keys: rows as JSON, with their secrets only once."""

from typing import Annotated

import msgspec
from msgspec import Meta

from bobrai.api.views import Moment
from bobrai.store.pool import Record


class KeyView(msgspec.Struct, kw_only=True):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    queues: Annotated[list[str], Meta(description="Patterns of the queues that it reaches; none: all.")]
    types: Annotated[list[str], Meta(description="Patterns of the task types that it reaches; none: all.")]
    own_tasks: bool
    rate: Annotated[str | None, Meta(description="Requests, such as `100/s`; null: the server's setting.")]
    burst: Annotated[int | None, Meta(description="Requests at once; null: as many as the rate has.")]
    max_waiting: Annotated[int | None, Meta(description="Tasks of it that may wait; null: without bound.")]
    created_at: Moment
    created_by: str
    rotated_at: Moment | None
    previous_until: Annotated[Moment | None, Meta(description="Until when the secret before works as well.")]
    expires_at: Moment | None
    expired: bool
    superseded: Annotated[bool, Meta(description="Another key is declared under its name; this one has a grace.")]
    revoked_at: Moment | None
    last_used_at: Annotated[Moment | None, Meta(description="Exact to a minute.")]


class KeyWithSecret(KeyView, kw_only=True):
    """An API key with its secret, which is shown this once."""

    key: Annotated[str, Meta(description="To be sent as `Authorization: Bearer …`.")]


class KeyList(msgspec.Struct):
    """Every key, the oldest first."""

    keys: list[KeyView]


def key(row: Record) -> KeyView:
    """Return a key's row as its view."""
    return KeyView(**row)


def key_with_secret(row: Record, secret: str) -> KeyWithSecret:
    """Return a key's row as its view, with the secret."""
    return KeyWithSecret(**row, key=secret)
