"""Limits of a queue or a type as clients get them back: rows as JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta

from bobrai.store.records import limits_value


class BoundsView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is absent is not bound; a burst that is absent is as many as the rate has."""

    concurrency: int | msgspec.UnsetType = msgspec.UNSET
    rate: Annotated[str | msgspec.UnsetType, Meta(description="Starts, such as `10/s`.")] = msgspec.UNSET
    burst: int | msgspec.UnsetType = msgspec.UNSET


class PerKeyView(BoundsView, kw_only=True, omit_defaults=True):
    """Bounds for the tasks of each value of a payload key, which take turns with those of the others."""

    key: Annotated[str, Meta(description="JSON Pointer into the payload.")]
    weights: Annotated[
        dict[str, int] | msgspec.UnsetType,
        Meta(description="Absent also for a credential that does not reach all tasks that the limits are for."),
    ] = msgspec.UNSET


class LimitsView(BoundsView, kw_only=True, omit_defaults=True):
    """Bounds for all tasks of a queue or a type together, and for those of each value of a payload key."""

    per_key: PerKeyView | msgspec.UnsetType = msgspec.UNSET


def limits_view(text: str | None, *, whole: bool) -> LimitsView | None:
    """Return limits as their view; whose weights differ is told only to who reaches all that they are for.

    None for such that cannot be read, as of another release: they bound nothing, and the dispatcher's log says so.
    """
    if text is None:
        return None
    try:
        limits_value(text)
    except msgspec.DecodeError:
        return None
    view = msgspec.json.decode(text, type=LimitsView)
    if not whole and isinstance(view.per_key, PerKeyView):
        view.per_key.weights = msgspec.UNSET
    return view
