"""What this process knows of queues and task types, read again about once a second.

In: rows of ``queues``, ``task_types`` and ``workers``. Out: answers without a query: the defaults of a type, whether a
payload fits its JSON Schema, whether a queue has room, whether anybody can run a task now. Something unknown makes the
catalog read again at once, but not in a busy loop.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final

import jsonschema_rs
import msgspec

from bobrai.api.admission import Admission
from bobrai.api.problems import REQUIRED, UNKNOWN_FIELD, Fault, pointer, shorten
from bobrai.domain import limits
from bobrai.domain.errors import DatabaseUnavailable, StoreRejected
from bobrai.domain.task import TaskType
from bobrai.settings.api import ApiSettings
from bobrai.store import queues, task_types, workers
from bobrai.store.pool import Database
from bobrai.store.rereading import Rereading
from bobrai.store.workers import LiveWorker
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

_FAULTS_PER_PAYLOAD: Final = 20
# The validator lists every fault or the first, and makes up to a tenth of a millisecond of each.
_ALL_FAULTS_CHARACTERS: Final = 2048


def _is_moment(text: str) -> bool:
    # What Python writes without an offset is no RFC 3339 date-time, but handlers' models read it.
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _anything(_text: str) -> bool:
    return True


# Formats whose RFC is narrower than what a handler's model accepts: the model has the last word.
_FORMATS: Final = {"date-time": _is_moment, "date": _is_date, "time": _anything, "duration": _anything}


class KnownType:
    """A task type with its compiled payload schema."""

    def __init__(self, type_: TaskType) -> None:
        self.type = type_
        self.payload_schema: Any = msgspec.json.decode(type_.payload_schema)
        self._validator = self._compiled()

    def _compiled(self) -> jsonschema_rs.Validator | None:
        if self.payload_schema in ({}, True):
            return None
        try:
            # offline: a schema that refers to an address must not make this process fetch it.
            return jsonschema_rs.Draft202012Validator(
                self.payload_schema, formats=_FORMATS, validate_formats=True, offline=True
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            # The worker checks again, so that a schema that cannot be used here refuses nothing.
            log.warning("catalog.schema_unusable", type=self.type.name, error=shorten(str(error).partition("\n")[0]))
            return None

    @property
    def checks(self) -> bool:
        """Whether payloads are checked at all."""
        return self._validator is not None

    def faults(self, payload: object, size: int, place: str) -> list[Fault]:
        """Return what is wrong with a payload of ``size`` characters of JSON, the first few places."""
        validator = self._validator
        if validator is None or validator.is_valid(payload):
            return []
        if size > _ALL_FAULTS_CHARACTERS:
            try:
                validator.validate(payload)
            except jsonschema_rs.ValidationError as error:
                return _places(error, place)
            return []
        found = [fault for error in validator.iter_errors(payload) for fault in _places(error, place)]
        return found[:_FAULTS_PER_PAYLOAD]


def _places(error: jsonschema_rs.ValidationError, place: str) -> list[Fault]:
    """A member that is missing or too much is named itself, not the object where it should be or should not."""
    here = place + pointer(*error.instance_path)
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        return [Fault(here + pointer(kind.property), REQUIRED)]
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        return [Fault(here + pointer(name), UNKNOWN_FIELD) for name in kind.unexpected[:_FAULTS_PER_PAYLOAD]]
    return [Fault(here, shorten(error.message))]


class Catalog:
    """Types and queues by name; ``version`` changes whenever a type does."""

    def __init__(self, database: Database, settings: ApiSettings) -> None:
        self.types: dict[str, KnownType] = {}
        self.queues: dict[str, Admission] = {}
        self.version = 0
        self.loaded = False
        self._workers: Sequence[LiveWorker] = ()
        self._lacks: dict[tuple[str, str], str] = {}  # what was found since the last reading
        self._makes_queues = settings.make_queues
        self._database = database
        self._default_limit = settings.max_backlog
        self._interval = settings.refresh_seconds
        self._rereading = Rereading(self._read)
        self._connected = metrics.CONNECTED.labels("database")

    async def run_once(self) -> float:
        """Read everything again; returns the seconds until the next time."""
        await self._rereading.now()
        return self._interval

    def knows(self, type_name: str, queue: str | None) -> bool:
        """Whether this type is known, and this queue if one is named."""
        return type_name in self.types and (queue is None or queue in self.queues)

    async def reread(self) -> None:
        """Return once a read is over that began after this call: it knows what was announced before."""
        await self._rereading.soon()

    async def load(self) -> None:
        """Read once if nothing was read yet; a database that is away leaves the catalog empty."""
        if not self.loaded:
            try:
                await self.run_once()
            except (DatabaseUnavailable, StoreRejected) as error:
                log.debug("catalog.empty", error=str(error))  # its loop says so, once

    def may_make(self, queue: str) -> bool:
        """Whether a task may make this queue: any, or with that switched off only one that an announced type names."""
        return self._makes_queues or any(known.type.queue == queue for known in self.types.values())

    def lack(self, type_: str, queue: str) -> str:
        """Return why no living worker can run such a task now, or an empty string."""
        found = self._lacks.get((type_, queue))
        if found is None:
            found = self._lacks[type_, queue] = self._lack(type_, queue)
        return found

    def _lack(self, type_: str, queue: str) -> str:
        having = [worker for worker in self._workers if worker.may_have(type_)]
        if not having:
            return f"no live worker has the type {type_!r}"
        if not any(queue in worker.queues for worker in having):
            return f"no live worker that has the type {type_!r} consumes the queue {queue!r}"
        return ""

    async def make_queues(self, names: Iterable[str]) -> bool:
        """Make queues that do not exist; returns False, with none made, when there would be too many."""
        async with self._rereading.lock:
            missing = {name for name in names if name not in self.queues}
            if missing:
                # Other processes make queues too; a queue is made so seldom that reading first costs nothing.
                if len(self.queues) + len(missing) <= limits.MAX_QUEUES:
                    await self._rereading.locked()
                if len(self.queues.keys() | missing) > limits.MAX_QUEUES:
                    return False
                await queues.ensure(self._database, sorted(missing))
                await self._rereading.locked()
                log.info("queues.made", queues=sorted(missing))
        return True

    async def _read(self) -> None:
        try:
            found = await task_types.every(self._database)
            rows = await queues.every(self._database)
            living = await workers.live(self._database)
        except DatabaseUnavailable:
            self._connected.set(0)
            raise
        self._connected.set(1)
        now = time.monotonic()
        self._take_types(found)
        self._workers, self._lacks = living, {}
        for name in self.queues.keys() - {row["name"] for row in rows}:
            del self.queues[name]
            metrics.forget_queue(name)
        for row in rows:
            admission = self.queues.setdefault(row["name"], Admission(row["name"]))
            limit = self._default_limit if row["max_backlog"] is None else row["max_backlog"]
            admission.measured(
                row["due"] + row["held"] + row["delayed"] + row["between_attempts"],
                age_seconds=row["measured_age_seconds"],
                limit=limit,
                now=now,
            )
        self.loaded = True

    def _take_types(self, found: list[TaskType]) -> None:
        fresh = {}
        for type_ in found:
            known = self.types.get(type_.name)
            fresh[type_.name] = known if known is not None and known.type == type_ else KnownType(type_)
        if fresh != self.types:
            self.version += 1
            self.types = fresh
