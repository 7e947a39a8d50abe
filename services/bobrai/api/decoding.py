"""Bytes of a submission become envelopes: the checked fields, and the payload twice, as text and as a value.

In: the body of a request. Out: envelopes one after the other, and every fault with its JSON Pointer. The payload's text
goes to the row as the client wrote it; its value serves the checks, and lives no longer than they take. What PostgreSQL
or a worker could not read is refused here, so that no item can fail its neighbours in a batch. Whether type, queue and
payload fit together is decided in ``submissions``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import msgspec
from pydantic import ValidationError

from bobrai.api import problems, schemas
from bobrai.api.faults import faults_of
from bobrai.api.problems import Fault
from bobrai.domain import limits, nesting
from bobrai.domain.children import APART

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


class _LargeBatch(msgspec.Struct):
    tasks: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _OnlyLargeBatch(_LargeBatch, forbid_unknown_fields=True):
    pass


# A body may name its tasks a million times, and only the last counts. Making places for each takes seconds, so that
# the places of a large one are made afterwards; for a small one that would be slower.
LARGE_BYTES: Final = 64 * 1024
_decoders: Final[dict[bool, tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]]] = {
    False: (msgspec.json.Decoder(_OnlyBatch), msgspec.json.Decoder(_Batch)),
    True: (msgspec.json.Decoder(_OnlyLargeBatch), msgspec.json.Decoder(_LargeBatch)),
}
_places: Final = msgspec.json.Decoder(_Items)
_KNOWN: Final = frozenset(schemas.TaskSubmission.model_fields)
_TIMES: Final = frozenset(name for pair in APART for name in pair)
_KNOWN_OF: Final = {
    name: frozenset(field.alias or known for known, field in model.model_fields.items())
    for name, model in (("retry", schemas.RetryPolicy), ("unique", schemas.Uniqueness))
}
# Beyond the largest number that every reader of a payload takes (a double, an integer of 4,300 digits).
_NUMBER: Final = "has a number that is out of range"
_DEPTH: Final = f"nests deeper than {limits.MAX_JSON_DEPTH} arrays and objects"
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `(.*)`", re.DOTALL)
# Up to the first half of a surrogate pair that stands alone.
_NO_SURROGATE: Final = re.compile(
    rb"(?:[^\\]+|\\(?:[^u]|u(?![dD][89a-fA-F])|u[dD][89abAB]..\\u[dD][c-fC-F]..))*+", re.DOTALL
)
_SEARCHED_BYTES: Final = 1024 * 1024


Value = TypeVar("Value")


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
    only, any_members = _decoders[len(body) > LARGE_BYTES]
    try:
        try:
            tasks = only.decode(body).tasks
        except msgspec.ValidationError as error:
            if (match := _UNKNOWN_FIELD.search(str(error))) is None:
                raise
            unknown = match[1]
            tasks = any_members.decode(body).tasks
    except msgspec.ValidationError as error:
        inside = "$.tasks" in str(error)
        faults.append(Fault("/tasks", problems.NO_ARRAY) if inside else Fault("", problems.NO_OBJECT))
        return []
    except RecursionError:
        faults.append(Fault("", _DEPTH))
        return []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        refuse_syntax(error, body)
    if isinstance(tasks, msgspec.Raw):
        try:
            tasks = _places.decode(tasks)
        except msgspec.ValidationError:
            faults.append(Fault("/tasks", problems.NO_ARRAY))
            return []
    if tasks is msgspec.UNSET:
        items: list[msgspec.Raw] = []
        faults.append(Fault("/tasks", problems.REQUIRED))
    else:
        items = list(takewhile(lambda item: item is not None, msgspec.structs.astuple(tasks)))
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
    members = _only(_KNOWN, members, place, faults)
    values = {}
    for name, value in members.items():
        here = len(faults)
        decoded = _decode(value, place, name, faults)
        if len(faults) == here:
            values[name] = decoded
    for name, known in _KNOWN_OF.items():
        if isinstance(within := values.get(name), dict):
            values[name] = _only(known, within, f"{place}/{name}", faults)
    text = values.get("payload")
    if isinstance(text, str) and not 1 <= len(text) <= limits.MAX_PAYLOAD_STRING:
        wanted = f"must have 1 to {limits.MAX_PAYLOAD_STRING} characters, not {len(text)}"
        faults.append(Fault(f"{place}/payload", wanted))
    timed = not _TIMES.isdisjoint(values)
    if timed:
        _check_apart(values, place, faults)
    try:
        fields = schemas.TaskSubmission.model_validate(values)
    except ValidationError as error:
        told = {fault.pointer for fault in faults[before:]}
        faults += [fault for fault in faults_of(error, place) if fault.pointer not in told]
        return None
    if timed:
        _check_moments(fields, place, faults)
    if fields.unique is not None and fields.unique.lacks_time:
        faults.append(Fault(f"{place}/unique/for_seconds", "is required with while always"))
    if len(faults) > before or raw is None:
        return None
    return Envelope(place, fields, str(memoryview(raw), "utf-8"))


def _check_apart(values: Mapping[str, object], place: str, faults: list[Fault]) -> None:
    for moment, seconds in APART:
        if values.get(moment) is not None and values.get(seconds) is not None:
            faults.append(Fault(f"{place}/{moment}", f"cannot be combined with {seconds}"))


def _check_moments(fields: schemas.TaskSubmission, place: str, faults: list[Fault]) -> None:
    """Add what can never start: it would end first. A moment and a time only the database's clock could compare."""
    for name, moment in (("deadline_at", fields.deadline_at), ("expires_at", fields.expires_at)):
        if moment is not None and fields.run_at is not None and moment <= fields.run_at:
            faults.append(Fault(f"{place}/{name}", "must be later than run_at"))
    for name, seconds in (("deadline_seconds", fields.deadline_seconds), ("expires_seconds", fields.expires_seconds)):
        if seconds is not None and seconds <= (fields.delay_seconds or 0.0):
            faults.append(Fault(f"{place}/{name}", "must be more than delay_seconds"))


def _only(known: frozenset[str], members: dict[str, Value], place: str, faults: list[Fault]) -> dict[str, Value]:
    """Return the members that are known; of those that are not, as many are faults as an answer shows."""
    if unknown := members.keys() - known:
        named = islice((name for name in members if name in unknown), problems.MAX_FAULTS)
        faults += [Fault(place + problems.pointer(name), problems.UNKNOWN_FIELD) for name in named]
        return {name: value for name, value in members.items() if name in known}
    return members


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
    if isinstance(value, dict | list) and nesting.is_deeper(bytes(raw), limits.MAX_JSON_DEPTH):
        faults.append(Fault(place + problems.pointer(name), _DEPTH))
    return value


def refuse_syntax(error: Exception, text: bytes | msgspec.Raw, place: str = "") -> NoReturn:
    """Raise the 400 problem of a text that is no JSON in UTF-8, in the words that fit."""
    where = f" at {place}" if place else ""
    if isinstance(error, UnicodeDecodeError):
        raise problems.bad_json(f"The body is not UTF-8{where}") from error
    # Half of a pair is read as a text that ends too early, or as a malformed pair.
    if any(words in str(error) for words in ("surrogate", "truncated", "hex escape")):
        begins = bytes(memoryview(text)[:_SEARCHED_BYTES])
        at = match.end() if (match := _NO_SURROGATE.match(begins)) else 0
        if begins[at : at + 2] == rb"\u":
            raise problems.bad_json(
                f"The body has a lone surrogate at byte {at}{where}, such as \\ud800 without its partner: no character"
            ) from error
    raise problems.bad_json(f"The body is not JSON{where}: {error}") from error
