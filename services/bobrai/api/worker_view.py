"""Workers as the API shows them: those whose lease holds.

In: what the store says of them. Out: views, in which nothing tells of what is outside of a grant.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from bobrai.api.views import Moment
from bobrai.domain.access import Grant
from bobrai.store.workers import LiveWorker

_NARROWED = "null for a credential that does not reach all tasks."


class WorkerView(msgspec.Struct):
    """A living worker: one whose lease holds."""

    id: int
    host: Annotated[str | None, Meta(description=f"Where it runs, in Kubernetes its pod; {_NARROWED}")]
    queues: Annotated[list[str], Meta(description="Those that it consumes and the credential reaches.")]
    types: Annotated[
        list[str] | None,
        Meta(description="Those that it has and the credential reaches; null: an older release, which does not say."),
    ]
    concurrency: Annotated[int, Meta(description="Tasks that it runs at once, over all its queues.")]
    running: Annotated[int | None, Meta(description=f"Tasks that it ran at its last heartbeat; {_NARROWED}")]
    started_at: Moment


class WorkerList(msgspec.Struct):
    """Every living worker, the oldest first."""

    workers: list[WorkerView]


def worker(living: LiveWorker, grant: Grant) -> WorkerView:
    """Return a worker as its view; what tells of queues, types and tasks outside of the grant is kept back."""
    whole = not grant.is_narrowed
    return WorkerView(
        id=living.id,
        host=living.host if whole else None,
        queues=[name for name in living.queues if grant.has_queue(name)],
        types=None if living.types is None else sorted(name for name in living.types if grant.has_type(name)),
        concurrency=living.concurrency,
        running=living.running if whole else None,
        started_at=living.started_at,
    )
