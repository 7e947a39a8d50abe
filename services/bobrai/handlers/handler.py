"""One declared handler: its name, its policy, and how its function is called.

In: what ``@task`` was given. Out: a call per attempt, for ``worker``, and the TaskType that ``store`` announces.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from pydantic import PydanticUserError
from pydantic.errors import PydanticSchemaGenerationError

from bobrai.domain import limits
from bobrai.domain.batch import Batch
from bobrai.domain.errors import ConfigurationError
from bobrai.domain.limiting import Limits
from bobrai.domain.retry import Retry
from bobrai.domain.task import DEFAULT_QUEUE, DEFAULT_TIMEOUT_SECONDS, TaskType
from bobrai.domain.unique import Unique
from bobrai.handlers import lifespan, signature
from bobrai.handlers.codec import PayloadCodec, ResultCodec
from bobrai.handlers.context import Context

_MIB: Final = 1024 * 1024
Exceptions: TypeAlias = type[BaseException] | Sequence[type[BaseException]]


class Handler:
    """A function that runs the tasks of one type.

    ``runs_in`` is ``"process"``, or None: an async function in the event loop, a plain one in a thread.
    ``memory_mb`` is the most resident memory, in MiB, of such a process; None is what the container has.
    ``limits`` hold over all workers. ``batch`` makes one call for many tasks, each an ``Item``; None: one for each.
    Raises ConfigurationError for whatever of this cannot work.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = DEFAULT_QUEUE,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry: Retry | None = None,
        runs_in: Literal["process"] | None = None,
        memory_mb: int | None = None,
        non_retryable: Exceptions = (),
        deadline: float | None = None,
        unique: Unique | Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        batch: Batch | None = None,
    ) -> None:
        _check(name, queue, timeout, retry)
        _check_place(name, runs_in, memory_mb)
        self.function = function
        self.name = name
        self.queue = queue
        self.timeout_seconds = float(timeout)
        self.retry = retry or Retry()
        self.runs_in = runs_in
        self.memory_mb = memory_mb
        self.non_retryable = _exceptions(name, non_retryable)
        self.deadline_seconds = _deadline(name, deadline)
        self.unique = _unique(name, unique)
        self.limits = _limits(name, limits)
        self.signature = signature.read(function)
        self.is_async = self.signature.is_async
        self.batch = _batch(name, batch, runs_in)
        if batch is not None:
            signature.check_batched(function, self.signature)
        self.is_direct = self.is_async and batch is None  # called in the event loop, for one task
        self.given: Mapping[str, Any] = {}  # by name, while the process has it
        self.where = signature.where(function)

    @property
    def memory_bytes(self) -> int | None:
        """The most resident memory of its process; None: what the container has."""
        return None if self.memory_mb is None else self.memory_mb * _MIB

    def call(self, ctx: Context, text: str) -> Any:
        """Call the function with what it takes of context and payload; an async one returns its coroutine.

        Raises InvalidPayload before the function is called.
        """
        wants = self.signature
        if wants.payload is None or self.given:
            return self.invoke(ctx, self.decode(text))
        payload = self.payload_codec.decode(text)
        return self.function(payload) if wants.context is None else self.function(ctx, payload)

    def decode(self, text: str) -> Any:
        """Return the payload as the function takes it, None when it takes none; raises InvalidPayload."""
        return None if self.signature.payload is None else self.payload_codec.decode(text)

    def invoke(self, ctx: Context, payload: Any) -> Any:
        """Call the function as ``call`` does, with a payload that is decoded already."""
        wants = self.signature
        if wants.payload is None:
            return self.function(**self.given) if wants.context is None else self.function(ctx, **self.given)
        if wants.context is None:
            return self.function(payload, **self.given)
        return self.function(ctx, payload, **self.given)

    def encode(self, result: Any) -> str:
        """Return a result as JSON text; raises InvalidResult."""
        return self.result_codec.encode(result)

    @cached_property
    def payload_codec(self) -> PayloadCodec:
        """Turns JSON text into the declared payload type."""
        return self._codecs[0]

    @cached_property
    def result_codec(self) -> ResultCodec:
        """Turns the declared result type into JSON text."""
        return self._codecs[1]

    @cached_property
    def _codecs(self) -> tuple[PayloadCodec, ResultCodec]:
        payload, result = signature.types_of(self.function, self.signature, batched=self.batch is not None)
        try:
            return PayloadCodec(payload), ResultCodec(result)
        except (PydanticUserError, PydanticSchemaGenerationError) as error:
            raise ConfigurationError(
                f"{self.where} has a type that pydantic cannot check: {error.message.splitlines()[0]}"
            ) from error

    @cached_property
    def dependencies(self) -> dict[str, Callable[..., Any]]:
        """The start-up functions whose values the function wants, by parameter; raises ConfigurationError."""
        return lifespan.wanted_by(self.function, self.signature.named, " after the *")

    def resolve(self) -> None:
        """Read the types of all parameters and the result.

        Raises ConfigurationError when a name in them does not exist, or a parameter can be given nothing.
        """
        try:
            _ = self._codecs, self.dependencies
        except NameError as error:
            raise ConfigurationError(
                f"{self.where} is annotated with a type that cannot be found: {error}; define it at module level"
            ) from error

    @cached_property
    def task_type(self) -> TaskType:
        """What workers announce of this handler; raises ConfigurationError when a type has no JSON Schema."""
        try:
            payload_schema, result_schema = self.payload_codec.schema, self.result_codec.schema
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.where}: {error}") from error
        return TaskType(
            name=self.name,
            queue=self.queue,
            description=inspect.getdoc(self.function) or "",
            payload_schema=payload_schema,
            result_schema=result_schema,
            retry=self.retry,
            timeout_seconds=self.timeout_seconds,
            deadline_seconds=self.deadline_seconds,
            unique=self.unique,
            limits=self.limits,
            runs_in=self.runs_in,
            memory_mb=self.memory_mb,
        )


def _check(name: object, queue: object, timeout: object, retry: object) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f'@task needs the name of a type: write @task("name") (got {name!r})')
    if not re.fullmatch(limits.TYPE_PATTERN, name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a type: 1 to 100 letters, digits, dots, dashes and underscores, "
            "the first a letter or digit"
        )
    if not isinstance(queue, str) or not re.fullmatch(limits.QUEUE_PATTERN, queue):
        raise ConfigurationError(f"{queue!r} cannot be the name of a queue (type {name!r}): {limits.QUEUE_RULE}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ConfigurationError(f"timeout of type {name!r} must be a number of seconds, not {timeout!r}")
    if not 0 < timeout <= limits.MAX_TIMEOUT_SECONDS:
        raise ConfigurationError(
            f"timeout of type {name!r} must be above 0 and at most {limits.MAX_TIMEOUT_SECONDS} s, not {timeout!r}"
        )
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry of type {name!r} must be a bobrai.Retry, not {retry!r}")


def _check_place(name: str, runs_in: object, memory_mb: object) -> None:
    if runs_in not in {None, "process"}:
        raise ConfigurationError(
            f'runs_in of type {name!r} must be "process", not {runs_in!r}; without it an async function runs in the '
            "event loop and a plain one in a thread"
        )
    if memory_mb is None:
        return
    if runs_in is None:
        raise ConfigurationError(f'memory_mb of type {name!r} needs runs_in="process": only a process has a limit')
    if isinstance(memory_mb, bool) or not isinstance(memory_mb, int):
        raise ConfigurationError(f"memory_mb of type {name!r} must be a whole number of MiB, not {memory_mb!r}")
    if not limits.MIN_MEMORY_MIB <= memory_mb <= limits.MAX_MEMORY_MIB:
        raise ConfigurationError(
            f"memory_mb of type {name!r} must be {limits.MIN_MEMORY_MIB} to {limits.MAX_MEMORY_MIB}, not {memory_mb}"
        )


def _exceptions(name: str, declared: object) -> tuple[type[BaseException], ...]:
    classes = tuple(declared) if isinstance(declared, tuple | list) else (declared,)
    for each in classes:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise ConfigurationError(
                f"non_retryable of type {name!r} must be classes of exceptions, as in "
                f"non_retryable=(ValueError, MyError), not {each!r}"
            )
        if issubclass(each, BaseExceptionGroup):
            raise ConfigurationError(
                f"non_retryable of type {name!r} names {each.__name__}, but a group counts as what is in it: "
                "name the classes of that"
            )
    return classes


def _limits(name: str, declared: object) -> Limits | None:
    if declared is None:
        return None
    if not isinstance(declared, Limits):
        raise ConfigurationError(
            f"limits of type {name!r} must be a bobrai.Limits, such as Limits(concurrency=20, rate='10/s', "
            f"per_key=PerKey('/account')), not {declared!r}"
        )
    return None if declared.is_empty else declared


def _deadline(name: str, declared: object) -> float | None:
    if declared is None:
        return None
    most = limits.MAX_DELAY_SECONDS
    if isinstance(declared, bool) or not isinstance(declared, int | float) or not 0 < declared <= most:
        raise ConfigurationError(
            f"deadline of type {name!r} must be a number of seconds above 0 and at most {most}, not {declared!r}"
        )
    return float(declared)


def _unique(name: str, declared: object) -> Unique | None:
    if declared is None or isinstance(declared, Unique):
        return declared
    if not isinstance(declared, Mapping):
        raise ConfigurationError(f"unique of type {name!r} must be a bobrai.Unique, not {declared!r}")
    try:
        return Unique.of(declared)
    except ValueError as error:
        raise ConfigurationError(f"unique of type {name!r}: {error}") from error


def _batch(name: str, declared: object, runs_in: object) -> Batch | None:
    if declared is None or (isinstance(declared, Batch) and runs_in is None):
        return declared
    if not isinstance(declared, Batch):
        raise ConfigurationError(f"batch of type {name!r} must be a bobrai.Batch, such as Batch(100), not {declared!r}")
    raise ConfigurationError(
        f'type {name!r} has both batch and runs_in="process": a process runs one task at a time; leave out one of them'
    )
