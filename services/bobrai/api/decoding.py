"""Bytes of a submission become envelopes: the checked fields, and the payload twice, as text and as a value.

In: the body of a request. Out: envelopes one after the other, and every fault with its JSON Pointer. The payload's text
goes to the row as the client wrote it; its value serves the checks, and lives no longer than they take. What PostgreSQL
or a worker could not read is refused here, so that no item can fail its neighbours in a batch. Whether type, queue and
payload fit together is decided in ``submissions``.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
from pydantic import ValidationError

from bobrai.api import problems, schemas
from bobrai.api.problems import Fault
from bobrai.domain import limits

_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value: Final = msgspec.json.Decoder()
# The places of a batch: what is beyond them is skipped without making anything of it, however many there are.
_Items: Any = msgspec.defstruct(
    "_Items", [(f"item_{n}", msgspec.Raw, None) for n in range(limits.MAX_BATCH_TASKS + 1)], array_like=True
)


class _Batch(msgspec.Struct):
    tasks: _Items | msgspec.UnsetType = msgspec.UNSET


class _OnlyBatch(_Batch, forbid_unknown_fields=True):
    pass


_batch: Final = msgspec.json.Decoder(_Batch)
_only_batch: Final = msgspec.json.Decoder(_OnlyBatch)
_KNOWN: Final = frozenset(schemas.TaskSubmission.model_fields)
# Beyond the largest number that every reader of a payload takes (a double, an integer of 4,300 digits).
_NUMBER: Final = "has a number that is out of range"
_DEPTH: Final = f"nests deeper than {limits.MAX_JSON_DEPTH} arrays and objects"
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `(.*)`", re.DOTALL)
# Up to the first half of a surrogate pair that stands alone.
_NO_SURROGATE: Final = re.compile(
    rb"(?:[^\\]+|\\(?:[^u]|u(?![dD][89a-fA-F])|u[dD][89abAB]..\\u[dD][c-fC-F]..))*+", re.DOTALL
)
_SEARCHED_BYTES: Final = 1024 * 1024


class Envelope(NamedTuple):
    """One submission: ``place`` is its pointer in the body, empty for a single one."""

    place: str
    fields: schemas.TaskSubmission
    payload: str


# One after the other, None for one that is wrong or to let others run; faults are added to the list meanwhile.
Envelopes = Iterator[Envelope | None]


def single(body: bytes, faults: list[Fault]) -> Envelopes:
    """Yield the one envelope of a body, adding what is wrong to ``faults``; raises a 400 problem."""
    members = _members(body, "", faults)
    yield None if members is None else _envelope(members, "", faults)


def batch(body: bytes, faults: list[Fault]) -> Envelopes:
    """Yield the envelopes of a batch, adding what is wrong with any item to ``faults``; raises a 400 problem."""
    items = _items(body, faults)
    yield None
    for index, item in enumerate(items):
        yield _item(item, f"/tasks/{index}", faults)


def _members(text: bytes | msgspec.Raw, place: str, faults: list[Fault]) -> dict[str, msgspec.Raw] | None:
    try:
        return _object.decode(text)
    except msgspec.ValidationError:
        faults.append(Fault(place, problems.NO_OBJECT))
    except RecursionError:
        faults.append(Fault(place, _DEPTH))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        refuse_syntax(error, text, place)
    return None


def _items(body: bytes, faults: list[Fault]) -> Sequence[msgspec.Raw]:
    unknown = ""
    try:
        try:
            found: _Batch = _only_batch.decode(body)
        except msgspec.ValidationError as error:
            if (match := _UNKNOWN_FIELD.search(str(error))) is None:
                raise
            unknown = match[1]
            found = _batch.decode(body)
    except msgspec.ValidationError as error:
        inside = "$.tasks" in str(error)
        faults.append(Fault("/tasks", problems.NO_ARRAY) if inside else Fault("", problems.NO_OBJECT))
        return []
    except RecursionError:
        faults.append(Fault("", _DEPTH))
        return []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        refuse_syntax(error, body)
    if found.tasks is msgspec.UNSET:
        items: list[msgspec.Raw] = []
        faults.append(Fault("/tasks", problems.REQUIRED))
    else:
        items = list(takewhile(lambda item: item is not None, msgspec.structs.astuple(found.tasks)))
        if not 1 <= len(items) <= limits.MAX_BATCH_TASKS:
            faults.append(Fault("/tasks", f"must have 1 to {limits.MAX_BATCH_TASKS} items"))
            items = []
    if unknown:
        beside = len(body) - sum(len(memoryview(item)) for item in items)
        # The names of a million members are not worth their memory: one of them will do.
        names = _object.decode(body) if beside <= limits.MAX_BODY_BYTES else (unknown,)
        faults += [Fault(problems.pointer(name), problems.UNKNOWN_FIELD) for name in names if name != "tasks"]
    return items


def _item(item: msgspec.Raw, place: str, faults: list[Fault]) -> Envelope | None:
    if len(memoryview(item)) > limits.MAX_BODY_BYTES:
        faults.append(Fault(place, f"has more than {limits.MAX_BODY_BYTES} bytes"))
        return None
    members = _members(item, place, faults)
    return None if members is None else _envelope(members, place, faults)


def _envelope(members: dict[str, msgspec.Raw], place: str, faults: list[Fault]) -> Envelope | None:
    before = len(faults)
    raw = members.get("payload")
    if unknown := members.keys() - _KNOWN:
        named = islice((name for name in members if name in unknown), problems.MAX_FAULTS)
        faults += [Fault(place + problems.pointer(name), problems.UNKNOWN_FIELD) for name in named]
        members = {name: value for name, value in members.items() if name in _KNOWN}
    values = {}
    for name, value in members.items():
        here = len(faults)
        decoded = _decode(value, place, name, faults)
        if len(faults) == here:
            values[name] = decoded
    text = values.get("payload")
    if isinstance(text, str) and not 1 <= len(text) <= limits.MAX_PAYLOAD_STRING:
        wanted = f"must have 1 to {limits.MAX_PAYLOAD_STRING} characters, not {len(text)}"
        faults.append(Fault(f"{place}/payload", wanted))
    if "run_at" in values and "delay_seconds" in values:
        faults.append(Fault(f"{place}/run_at", "cannot be combined with delay_seconds"))
    try:
        fields = schemas.TaskSubmission.model_validate(values)
    except ValidationError as error:
        told = {fault.pointer for fault in faults[before:]}
        faults += [fault for fault in schemas.faults_of(error, place) if fault.pointer not in told]
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
        refuse_syntax(error, raw, place + problems.pointer(name))
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


def refuse_syntax(error: Exception, text: bytes | msgspec.Raw, place: str = "") -> NoReturn:
    """Raise the 400 problem of a text that is no JSON in UTF-8, in the words that fit."""
    where = f" at {place}" if place else ""
    if isinstance(error, UnicodeDecodeError):
        raise problems.bad_json(f"The body is not UTF-8{where}") from error
    # Half of a pair is read as a text that ends too early, or as a malformed pair.
    if "surrogate" in str(error) or "truncated" in str(error):
        begins = bytes(memoryview(text)[:_SEARCHED_BYTES])
        at = match.end() if (match := _NO_SURROGATE.match(begins)) else 0
        if begins[at : at + 2] == rb"\u":
            raise problems.bad_json(
                f"The body has a lone surrogate at byte {at}{where}, such as \\ud800 without its partner: no character"
            ) from error
    raise problems.bad_json(f"The body is not JSON{where}: {error}") from error
