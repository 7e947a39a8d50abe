"""What a submitted task is alike by: its own rule or its type's, and among whose tasks.

In: an envelope, its type, its principal. Out: a hash and its rule, for ``store/unique.py``, or a fault.
"""

from bobrai.api.decoding import Envelope
from bobrai.api.problems import Fault
from bobrai.domain import unique
from bobrai.domain.access import Principal
from bobrai.domain.task import TaskType
from bobrai.domain.unique import Held, Unique


def of(envelope: Envelope, type_: TaskType, principal: Principal, faults: list[Fault]) -> Held | None:
    """Return what the task is alike by; None: to nothing, or what is wrong was added to the faults."""
    fields = envelope.fields
    said = fields.unique
    if said is not None:
        rule = Unique(key=said.key, for_seconds=said.for_seconds, while_=said.while_, on_conflict=said.on_conflict)
    elif "unique" in fields.model_fields_set or type_.unique is None:
        return None
    else:
        rule = type_.unique
    # Nobody is to learn of tasks outside of the grant, nor to change them: what is alike is looked for inside of it.
    # (The type is a part of what is compared, and was checked.)
    grant = principal.grant
    try:
        return unique.held(
            rule,
            type_.name,
            fields.payload,
            client_id=principal.id if grant.own_tasks else None,
            queue=(fields.queue or type_.queue) if grant.queues else None,
        )
    except LookupError:
        whose = "" if said is not None else ", which the type is unique by"
        faults.append(Fault(f"{envelope.place}/unique/key", f"the payload has nothing at {rule.key!r}{whose}"))
        return None
