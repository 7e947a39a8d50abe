"""Bytes of a submission become envelopes: the checked fields, and the payload twice, as text and as a value.

In: the body of a request. Out: envelopes, or every fault with its JSON Pointer. The payload's text goes to the row as
the client wrote it; its value serves the checks. What PostgreSQL or a worker could not read is refused here, so that no
item can fail its neighbours in a batch. Whether type, queue and payload fit together is decided in ``submissions``.
"""

from typing import Any, Final, NamedTuple, NoReturn

import msgspec
from pydantic import ValidationError

from bobrai.api import problems, schemas
from bobrai.api.problems import Fault
from bobrai.domain import limits

_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects: Final = msgspec.json.Decoder(list[msgspec.Raw])
_value: Final = msgspec.json.Decoder()
# Beyond the largest number that every reader of a payload takes (a double, an integer of 4,300 digits).
_NUMBER: Final = "has a number that is out of range"
_DEPTH: Final = f"nests deeper than {limits.MAX_JSON_DEPTH} arrays and objects"


class Envelope(NamedTuple):
    """One submission: ``place`` is its pointer in the body, empty for a single one."""

    place: str
    fields: schemas.TaskSubmission
    payload: str


def single(body: bytes) -> list[Envelope]:
    """Return the one envelope of a body; raises a 400 or 422 problem."""
    faults: list[Fault] = []
    envelope = _envelope(_members(body), "", faults)
    if envelope is None:
        raise problems.invalid(faults)
    return [envelope]


def batch(body: bytes) -> list[Envelope]:
    """Return the envelopes of a batch; raises a 400 or 422 problem that names every bad item."""
    members = _members(body)
    faults = [Fault(problems.pointer(name), "is not a known field") for name in members if name != "tasks"]
    items = _items(members, faults)
    envelopes = []
    for index, item in enumerate(items):
        place = f"/tasks/{index}"
        if len(memoryview(item)) > limits.MAX_BODY_BYTES:
            faults.append(Fault(place, f"has more than {limits.MAX_BODY_BYTES} bytes"))
        elif (envelope := _item(item, place, faults)) is not None:
            envelopes.append(envelope)
    if faults:
        raise problems.invalid(faults)
    return envelopes


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _object.decode(body)
    except msgspec.ValidationError as error:
        raise problems.invalid([Fault("", "must be an object")]) from error
    except RecursionError as error:
        raise problems.invalid([Fault("", _DEPTH)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_syntax(error)


def _items(members: dict[str, msgspec.Raw], faults: list[Fault]) -> list[msgspec.Raw]:
    if "tasks" not in members:
        faults.append(Fault("/tasks", "is required"))
        return []
    try:
        items = _objects.decode(members["tasks"])
    except msgspec.ValidationError:
        faults.append(Fault("/tasks", "must be an array"))
        return []
    if not 1 <= len(items) <= limits.MAX_BATCH_TASKS:
        faults.append(Fault("/tasks", f"must have 1 to {limits.MAX_BATCH_TASKS} items, not {len(items)}"))
        return []
    return items


def _item(item: msgspec.Raw, place: str, faults: list[Fault]) -> Envelope | None:
    try:
        members = _object.decode(item)
    except msgspec.ValidationError:
        faults.append(Fault(place, "must be an object"))
        return None
    except UnicodeDecodeError as error:
        _refuse_syntax(error)
    return _envelope(members, place, faults)


def _envelope(members: dict[str, msgspec.Raw], place: str, faults: list[Fault]) -> Envelope | None:
    before = len(faults)
    raw = members.get("payload")
    values = {name: _decode(value, place, name, faults) for name, value in members.items()}
    if len(faults) > before:
        return None
    text = values.get("payload")
    if isinstance(text, str) and not 1 <= len(text) <= limits.MAX_PAYLOAD_STRING:
        wanted = f"must have 1 to {limits.MAX_PAYLOAD_STRING} characters, not {len(text)}"
        faults.append(Fault(f"{place}/payload", wanted))
    if "run_at" in values and "delay_seconds" in values:
        faults.append(Fault(f"{place}/run_at", "cannot be combined with delay_seconds"))
    try:
        fields = schemas.TaskSubmission.model_validate(values)
    except ValidationError as error:
        faults += schemas.faults_of(error, place)
        return None
    if len(faults) > before or raw is None:
        return None
    return Envelope(place, fields, str(memoryview(raw), "utf-8"))


def _decode(raw: msgspec.Raw, place: str, name: str, faults: list[Fault]) -> Any:
    # The pointer is made only for a fault: making it costs as much as decoding.
    try:
        value = _value.decode(raw)
    except msgspec.ValidationError:
        faults.append(Fault(place + problems.pointer(name), _NUMBER))
        return None
    except RecursionError:
        faults.append(Fault(place + problems.pointer(name), _DEPTH))
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_syntax(error)
    if isinstance(value, dict | list) and _deeper(raw, value):
        faults.append(Fault(place + problems.pointer(name), _DEPTH))
    return value


def _deeper(raw: msgspec.Raw, value: Any) -> bool:
    text = bytes(raw)
    # So few brackets cannot nest too deep: the walk is for the rest.
    if text.count(b"[") + text.count(b"{") <= limits.MAX_JSON_DEPTH:
        return False
    level = [value]
    for _ in range(limits.MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_syntax(error: Exception) -> NoReturn:
    if isinstance(error, UnicodeDecodeError):
        raise problems.bad_json("The body is not UTF-8") from error
    raise problems.bad_json(f"The body is not JSON: {error}") from error
