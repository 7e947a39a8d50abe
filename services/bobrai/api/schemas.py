"""What clients may send: the shapes of bodies and query strings, with every limit as a schema keyword.

In: decoded JSON, or the strings of a query. Out: checked values, or every fault at once with its place. The OpenAPI
document is made from these classes; what clients get back is in ``views``.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from bobrai.api.faults import faults_of
from bobrai.api.fields import Strict, integer, optional
from bobrai.api.limits_schema import Burst, LimitsWish, RateText
from bobrai.api.problems import Fault, invalid, pointer
from bobrai.domain import limits
from bobrai.domain.access import GRANT_PATTERN, Scope
from bobrai.domain.audit import Action
from bobrai.domain.task import DEFAULT_TYPE, TaskStatus
from bobrai.domain.unique import POINTER_PATTERN, OnConflict, While

# RFC 3339 with the years that a queue can mean; a leap second has no place in PostgreSQL or Python.
MOMENT_PATTERN: Final = (
    r"^(19[7-9][0-9]|20[0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_RFC_3339: Final = re.compile(MOMENT_PATTERN.replace("(19[7-9][0-9]|20[0-9][0-9])", "[0-9]{4}"))
CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{11}$"
# Bare, or quoted as the draft has it (a string of RFC 8941).
_MOST = limits.MAX_IDEMPOTENCY_KEY
IDEMPOTENCY_KEY_PATTERN: Final = rf'^(?:[!#-\[\]-~]{{1,{_MOST}}}|"(?:[ !#-\[\]-~]|\\["\\]){{1,{_MOST}}}")$'
_MOMENT = re.compile(MOMENT_PATTERN)
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

Model = TypeVar("Model", bound=BaseModel)


def _moment(value: object) -> datetime:
    if isinstance(value, str) and _MOMENT.match(value):
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError:
            pass  # a day that its month does not have: the same answer as for any other text
    if isinstance(value, str) and _RFC_3339.match(value) and not _MOMENT.match(value):
        raise PydanticCustomError("moment", "must be within the years 1970 to 2099")
    raise PydanticCustomError("moment", "must be an RFC 3339 date-time with offset, such as 2030-01-31T12:00:00Z")


def _query_moment(value: object) -> datetime:
    # An offset's plus that a client forgot to escape arrives as a space.
    return _moment(value.replace(" ", "+") if isinstance(value, str) else value)


def _from_query(value: object) -> object:
    if isinstance(value, str) and len(value) < 32 and _JSON_NUMBER.fullmatch(value):
        return float(value) if set(value) & {".", "e", "E"} else int(value)
    return value


def _flag_from_query(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


_MOMENT_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time", "pattern": MOMENT_PATTERN})
_from_text = BeforeValidator(_from_query)
Moment = Annotated[datetime, BeforeValidator(_moment), _MOMENT_SCHEMA]
QueryMoment = Annotated[datetime, BeforeValidator(_query_moment), _MOMENT_SCHEMA]
QueueName = Annotated[str, Field(strict=True, pattern=limits.QUEUE_PATTERN)]
TypeName = Annotated[str, Field(strict=True, pattern=limits.TYPE_PATTERN)]
Cursor = Annotated[str, Field(pattern=CURSOR_PATTERN)]
Delay = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=limits.MAX_DELAY_SECONDS)]
Factor = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1, le=100)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Timeout = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.001, le=limits.MAX_TIMEOUT_SECONDS)]
Span = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.001, le=limits.MAX_DELAY_SECONDS)]
Wait = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=limits.MAX_WAIT_SECONDS), _from_text]
Priority = Annotated[int, Field(strict=True, ge=0, le=limits.MAX_PRIORITY), integer]
Attempts = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_ATTEMPTS), integer]
PayloadPointer = Annotated[str, Field(strict=True, pattern=POINTER_PATTERN, max_length=limits.MAX_KEY_POINTER)]
PageSize = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_PAGE), integer, _from_text]
TaskId = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1), integer, _from_text]
Backlog = Annotated[int, Field(strict=True, ge=0, le=2**53), integer]
Flag = Annotated[bool, Field(strict=True)]
QueryFlag = Annotated[bool, Field(strict=True), BeforeValidator(_flag_from_query)]


class RetryPolicy(Strict):
    """When a failed attempt is tried again; what is left out comes from the type."""

    delay_seconds: Delay = optional("Nominal wait after the first failed attempt.")
    factor: Factor = optional("The wait is multiplied by this after each further attempt.")
    max_delay_seconds: Delay = optional("No wait is longer.")
    jitter: Share = optional("Largest share by which a wait is shortened at random.")
    retry_for_seconds: Span = optional(
        "No attempt follows that would start later than this after the first start. Without max_attempts there are up"
        f" to {limits.MAX_ATTEMPTS} attempts within it."
    )


class Uniqueness(Strict):
    """Of which tasks of a type there is one at a time."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "if": {"properties": {"while": {"const": "always"}}, "required": ["while"]},
            "then": {"required": ["for_seconds"]},
        },
    )

    key: PayloadPointer = Field(
        "", description="JSON Pointer into the payload: tasks with the same value there are alike. Empty: all of it."
    )
    for_seconds: Span = optional("For no longer than this after the acceptance of the first one.")
    while_: While = Field(
        "unfinished",
        alias="while",
        description="The first one is the only one until it starts (waiting), until it has ended (unfinished), or "
        "whatever becomes of it (always), which needs for_seconds.",
    )
    on_conflict: OnConflict = Field(
        "keep",
        description="Whether the first one stays as it is, or gets what this one says if it still waits.",
    )

    @property
    def lacks_time(self) -> bool:
        """Whether it would hold for ever."""
        return self.while_ == "always" and self.for_seconds is None


class TaskSubmission(Strict):
    """A task to run."""

    payload: Any = Field(
        description=f"Any JSON value, given to the handler. A string has 1 to {limits.MAX_PAYLOAD_STRING} characters; "
        f"arrays and objects nest at most {limits.MAX_JSON_DEPTH} deep.",
        json_schema_extra={"minLength": 1, "maxLength": limits.MAX_PAYLOAD_STRING},
    )
    type: TypeName = Field(DEFAULT_TYPE, description="Which handler runs it.")
    queue: QueueName = optional("Where it waits; the type decides when absent.")
    priority: Priority = Field(0, description="Higher starts first.")
    delay_seconds: Delay = optional("Due so many seconds from now; not together with run_at.")
    run_at: Moment = optional("Due at this moment; one in the past means now.")
    timeout_seconds: Timeout = optional("Longest run of one attempt; the type decides when absent.")
    deadline_seconds: Span = optional(
        "So long after its acceptance the task fails unless it has ended; more than delay_seconds, not together with"
        " deadline_at."
    )
    deadline_at: Moment = optional(
        "The task fails at this moment unless it has ended; later than run_at. The type decides when absent."
    )
    expires_seconds: Span = optional(
        "So long after its acceptance the task is cancelled unless it has started; more than delay_seconds, not"
        " together with expires_at."
    )
    expires_at: Moment = optional("The task is cancelled at this moment unless it has started; later than run_at.")
    max_attempts: Attempts = optional("Attempts before the task fails; the type decides when absent.")
    retry: RetryPolicy = optional("Waits between attempts.")
    unique: Uniqueness | None = optional(
        "Makes no second task of its kind; the type decides when absent, and null means that there may be many."
    )


class TaskBatch(Strict):
    """Tasks that are stored all or none."""

    tasks: list[TaskSubmission] = Field(min_length=1, max_length=limits.MAX_BATCH_TASKS)


class QueueWish(Strict):
    """What a queue is to be like; what is left out stays, or is as with any new queue."""

    paused: Flag = optional("A paused queue accepts tasks and starts none.")
    max_backlog: Backlog | None = optional(
        "Waiting tasks above which submits get 429; null means the server's setting."
    )
    limits: LimitsWish | None = optional(
        "How many of its tasks run at once and start in a time, in place of the limits so far; null: no limit."
    )


class QueueChange(QueueWish):
    """What to change of a queue; at least one member."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})


class TypeChange(Strict):
    """What to change of a type."""

    limits: LimitsWish | None = Field(
        description="How many of its tasks run at once and start in a time, over all queues, in place of what its "
        "handler declares. `{}`: no limit; null: what is declared holds again."
    )


KeyName = Annotated[str, Field(strict=True, pattern=limits.KEY_NAME_PATTERN)]
# In the document only: Grant.of says in clearer words what a pattern is.
_PATTERN_SCHEMA: Final[dict[str, Any]] = {"minLength": 1, "pattern": GRANT_PATTERN}
_Pattern = Annotated[str, Field(max_length=limits.MAX_PATTERN, json_schema_extra=_PATTERN_SCHEMA)]
Patterns = Annotated[list[_Pattern], Field(max_length=limits.MAX_PATTERNS)]
KeyLife = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=limits.MAX_KEY_LIFE_SECONDS)]
Grace = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=limits.MAX_GRACE_SECONDS)]


class KeyWish(Strict):
    """An API key to make. In patterns of queues and types ``*`` stands for any characters; none: all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "not": {"required": ["expires_at", "expires_seconds"]},
            "dependentRequired": {"burst": ["rate"]},
            "if": {"properties": {"scopes": {"contains": {"const": Scope.ADMIN.value}}}},
            "then": {
                "properties": {"queues": {"maxItems": 0}, "types": {"maxItems": 0}, "own_tasks": {"const": False}}
            },
        },
    )

    name: KeyName = Field(description="For people; no two keys in use have the same.")
    scopes: list[Scope] = Field(min_length=1, description="What it may do; `admin` includes all others.")
    queues: Patterns = Field([], description="The queues that it reaches.")
    types: Patterns = Field([], description="The task types that it reaches.")
    own_tasks: Flag = Field(default=False, description="Of tasks it reaches only those that it has submitted itself.")
    rate: RateText = optional("Requests, over all processes; the server's setting when absent.")
    burst: Burst = optional("Requests at once after a pause; as many as the rate has when absent.")
    max_waiting: Backlog = optional("Tasks of it that may wait; without bound when absent.")
    expires_at: Moment = optional("When it ends; never when absent.")
    expires_seconds: KeyLife = optional("It ends so many seconds from now; not together with expires_at.")


class KeyRotation(Strict):
    """How to give a key another secret."""

    grace_seconds: Grace = Field(86_400.0, description="How long the secret so far works as well; 0: not at all.")


class QueueRemoval(Strict):
    """How to remove a queue."""

    purge: QueryFlag = Field(
        default=False, description="Cancel what waits, and ask what runs to stop, instead of refusing because of it."
    )


class TaskQuery(Strict):
    """How to read one task."""

    wait: Wait = Field(0, description="Hold the answer until the task is final, at most so many seconds.")


class TaskListQuery(Strict):
    """Which tasks to list, and which page."""

    status: TaskStatus = optional("Only tasks with this status.")
    type: TypeName = optional("Only tasks of this type.")
    queue: QueueName = optional("Only tasks of this queue.")
    created_after: QueryMoment = optional("Only tasks accepted after this moment.")
    created_before: QueryMoment = optional("Only tasks accepted before this moment.")
    parent_id: TaskId = optional("Only tasks that this one has submitted.")
    limit: PageSize = Field(50, description="Most tasks on a page; a page of large tasks has fewer.")
    cursor: Cursor = optional("next_cursor of the page before.")


class AuditQuery(Strict):
    """Which changes to list, and which page."""

    actor: Annotated[str, Field(max_length=limits.MAX_AUDIT_TEXT)] = optional(
        "Only those of this principal, such as `key:k7x2m9q4w1ab`, `cli:alice` or `anonymous`."
    )
    action: Action = optional("Only those of this kind.")
    target: Annotated[str, Field(max_length=limits.MAX_AUDIT_TEXT)] = optional(
        "Only those to this, such as `task:17`, `queue:mail` or `key:k7x2m9q4w1ab`."
    )
    after: QueryMoment = optional("Only those made after this moment.")
    before: QueryMoment = optional("Only those made before this moment.")
    limit: PageSize = Field(50, description="Most changes on a page.")
    cursor: Cursor = optional("next_cursor of the page before.")


class ScalingQuery(Strict):
    """Which queues to add up."""

    queues: str = Field("", description="Names, separated by commas. None: all queues.")

    def names(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(filter(None, (name.strip() for name in self.queues.split(","))))


class NoQuery(Strict):
    """A path without query parameters."""


def query(model: type[Model], query_string: bytes) -> Model:
    """Return the checked parameters of a query string; raises a 422 problem naming every wrong one."""
    if not query_string:
        return model()
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise invalid([Fault("/query", "is not percent-encoded UTF-8, or has over 100 fields")]) from error
    given = dict(pairs)
    faults = [Fault(pointer("query", name), "is given twice") for name in repeated(name for name, _ in pairs)]
    try:
        value = model.model_validate(given)
    except ValidationError as error:
        faults += faults_of(error, "/query")
        raise invalid(faults) from error
    if faults:
        raise invalid(faults)
    return value


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, in the order of their second occurrence."""
    seen: set[str] = set()
    again: dict[str, None] = {}
    for name in names:
        if name in seen:
            again[name] = None
        seen.add(name)
    return list(again)
