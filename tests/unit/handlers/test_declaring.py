"""What ``@task`` accepts, what it refuses, and that it says what to write instead."""

import functools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bobrai
from bobrai import Context, Limits, PerKey, Retry, Unique
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import builtin, registry
from bobrai.handlers.handler import Handler
from bobrai.handlers.registry import Registry


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Makes importable modules, and a default registry of the test's own to fill."""
    before = set(sys.modules)
    own = Registry()
    monkeypatch.setattr(registry, "default", own)
    monkeypatch.setattr(registry, "task", own.task)
    monkeypatch.setattr(registry, "on_startup", own.hooks.on_startup)
    monkeypatch.setattr(registry, "middleware", own.middlewares.middleware)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_public_names_are_the_ones_that_handlers_need() -> None:
    names = {"task", "Context", "Limits", "PerKey", "Retry", "RetryLater", "PermanentFailure", "Unique"}
    assert names <= set(bobrai.__all__)
    assert all(getattr(bobrai, name) is not None for name in bobrai.__all__)
    with pytest.raises(AttributeError):
        _ = bobrai.no_such_name  # type: ignore[attr-defined]


def test_decorated_function_stays_as_it_is() -> None:
    def add(payload: int) -> int:
        return payload + 1

    own = Registry()
    assert own.task("add")(add) is add
    handler = own.get("add")
    assert handler is not None
    assert handler.function is add


def test_defaults_and_policy_reach_the_announcement() -> None:
    own = Registry()

    @own.task("thumbnail", queue="media", timeout=60, deadline=600, retry=Retry(max_attempts=5))
    async def thumbnail(ctx: Context, payload: list[int]) -> dict[str, bool]:
        """Make it small."""
        return {}

    kind = next(kind for kind in own.types() if kind.name == "thumbnail")
    assert (kind.queue, kind.timeout_seconds, kind.retry.max_attempts) == ("media", 60.0, 5)
    assert kind.deadline_seconds == 600.0
    assert kind.description == "Make it small."
    assert '"$schema": "https://json-schema.org/draft/2020-12/schema"' in kind.payload_schema
    assert '"integer"' in kind.payload_schema
    assert '"boolean"' in kind.result_schema


def test_limits_and_where_it_runs_reach_the_announcement() -> None:
    own = Registry()
    limits = Limits(concurrency=20, rate="10/s", per_key=PerKey("/account", concurrency=3, weights={"acme": 3}))
    own.task("charge", limits=limits, runs_in="process", memory_mb=128)(_two)
    own.task("free", limits=Limits())(_two)
    kinds = {kind.name: kind for kind in own.types()}
    charge, free = kinds["charge"], kinds["free"]
    assert (charge.limits, charge.runs_in, charge.memory_mb) == (limits, "process", 128)
    assert (free.limits, free.runs_in, free.memory_mb) == (None, None, None), "limits that say nothing are none"


def test_a_bound_that_cannot_be_is_told_with_its_line(write_module: Callable[[str, str], None]) -> None:
    write_module(
        "unbounded_tasks",
        """
        from bobrai import Limits, task

        @task("charge", limits=Limits(concurrency=0))
        async def charge(payload: int) -> None: ...
        """,
    )
    with pytest.raises(ConfigurationError, match=r"concurrency must be .*, not 0 .*unbounded_tasks.py, line 4"):
        registry.load(["unbounded_tasks"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"concurrency": 3}, r"must be a bobrai.Limits, such as Limits\(concurrency=20"),
        (PerKey("/account"), r"must be a bobrai.Limits, .*per_key=PerKey\('/account'\)"),
        (20, "must be a bobrai.Limits"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused_in_words(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"limits of type 'charge' .*{says}"):
        Registry().task("charge", limits=wrong)(_two)


async def _two(ctx: Context, payload: int) -> None: ...
async def _payload(payload: int) -> None: ...
async def _named(ctx: Any) -> None: ...
async def _annotated(context: Context) -> None: ...
def _quoted(c: "bobrai.Context") -> None: ...
def _none() -> None: ...
def _keyword(payload: int, *, retries: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("function", "context", "payload"),
    [
        (_two, "ctx", "payload"),
        (_payload, None, "payload"),
        (_named, "ctx", None),
        (_annotated, "context", None),
        (_quoted, "c", None),
        (_none, None, None),
        (_keyword, None, "payload"),
    ],
)
def test_each_shape_of_signature_is_understood(
    function: Callable[..., Any], context: str | None, payload: str | None
) -> None:
    signature = Handler(function, "shape").signature
    assert (signature.context, signature.payload) == (context, payload)


def _three(ctx: Context, payload: int, more: int) -> None: ...
def _swapped(payload: int, ctx: Context) -> None: ...
def _variable(*payloads: int) -> None: ...
def _named_only(*, payload: int) -> None: ...
def _generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_three, "takes (ctx, payload, more)"),
        (_swapped, "it comes first"),
        (_variable, "*payloads"),
        (_named_only, "payload"),
        (_generator, "generator"),
        (print, "belongs on a function"),
        (Registry, "belongs on a function"),
    ],
)
def test_signature_that_no_attempt_could_call_is_refused(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Registry().task("odd")(function)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "with space", "-dash", "ü", "x" * 101, "trailing\n"])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a type"):
        Registry().task(name)(_none)


@pytest.mark.parametrize("queue", ["", "Upper", "a b", "x" * 64, "media\n"])
def test_bad_queue_is_refused(queue: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a queue"):
        Registry().task("fine", queue=queue)(_none)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", True, 10**9])
def test_bad_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        Registry().task("fine", timeout=timeout)(_none)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "60", True, 10**9])
def test_bad_deadline_is_refused(deadline: Any) -> None:
    with pytest.raises(ConfigurationError, match="deadline of type 'fine' must be a number of seconds"):
        Registry().task("fine", deadline=deadline)(_none)


@pytest.mark.parametrize(
    "declared",
    [
        Unique(key="/order", for_seconds=60, while_="waiting", on_conflict="replace"),
        {"key": "/order", "for_seconds": 60, "while": "waiting", "on_conflict": "replace"},
    ],
)
def test_a_rule_of_uniqueness_reaches_the_announcement(declared: Any) -> None:
    own = Registry()
    own.task("order", unique=declared)(_none)
    kind = next(kind for kind in own.types() if kind.name == "order")
    assert kind.unique == Unique(key="/order", for_seconds=60, while_="waiting", on_conflict="replace")
    assert {kind.unique for kind in own.types() if kind.name != "order"} == {None}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("/order", "unique of type 'fine' must be a bobrai.Unique, not '/order'"),
        (True, "unique of type 'fine' must be a bobrai.Unique, not True"),
        ({"key": "order"}, "unique of type 'fine': key must be a JSON Pointer"),
        ({"while_": "waiting"}, "unique of type 'fine': there is no 'while_', only key"),
        ({"while": "always"}, "unique of type 'fine': while_=\"always\" needs for_seconds"),
    ],
)
def test_a_wrong_rule_of_uniqueness_is_refused(declared: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Registry().task("fine", unique=declared)(_none)
    assert str(refused.value).startswith(words)


def test_bare_decorator_and_wrong_retry_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'@task\("name"\)'):
        Registry().task(_none)  # type: ignore[type-var,arg-type]
    with pytest.raises(ConfigurationError, match=r"bobrai\.Retry"):
        Registry().task("fine", retry=5)(_none)  # type: ignore[arg-type]


@pytest.mark.parametrize("declared", [ValueError, (ValueError,), [ValueError]], ids=["class", "tuple", "list"])
def test_classes_that_no_attempt_can_mend_are_kept(declared: Any) -> None:
    assert Handler(_none, "strict", non_retryable=declared).non_retryable == (ValueError,)
    assert Handler(_none, "lenient").non_retryable == ()


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("ValueError", "non_retryable=(ValueError, MyError), not 'ValueError'"),
        ((ValueError("x"),), "must be classes of exceptions"),
        ((ValueError, int), "not <class 'int'>"),
        ({ValueError}, "must be classes of exceptions"),
        (None, "not None"),
        ((ValueError, (KeyError,)), "must be classes of exceptions"),
        (ExceptionGroup, "name the classes of that"),
    ],
)
def test_what_is_no_class_of_exceptions_is_refused(declared: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Registry().task("strict", non_retryable=declared)(_none)
    assert words in str(caught.value)


def test_name_that_is_taken_is_refused_and_both_places_are_named() -> None:
    own = Registry()
    own.task("same")(_none)
    own.task("same")(_none)  # the same function again, as after a reload
    with pytest.raises(ConfigurationError, match=r"_none.*_payload"):
        own.task("same")(_payload)
    with pytest.raises(ConfigurationError, match=r"builtin\.demo"):
        own.task("demo")(_payload)


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def test_decorated_handlers_keep_their_shape_and_their_names() -> None:
    own = Registry()
    own.task("traced")(_traced(_two))
    handler = own.get("traced")
    assert handler is not None
    assert handler.is_async
    assert (handler.signature.context, handler.signature.payload) == ("ctx", "payload")
    assert '"integer"' in handler.task_type.payload_schema
    with pytest.raises(ConfigurationError, match="declared twice"):
        own.task("traced")(_traced(_payload))


def test_type_that_pydantic_cannot_check_is_refused_at_the_declaration() -> None:
    class Opaque:
        pass

    def opaque(payload: Opaque) -> None: ...

    with pytest.raises(ConfigurationError, match=r"opaque.*cannot check"):
        Registry().task("opaque")(opaque)


def test_type_without_a_schema_is_refused_at_the_start() -> None:
    own = Registry()

    @own.task("callback")
    def callback(payload: Callable[[], None]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"callback.*no JSON Schema"):
        own.resolve()


def test_built_in_types_are_always_there() -> None:
    assert {kind.name for kind in builtin.types()} == {"demo", "echo"}
    assert {kind.name for kind in Registry().types()} == {"demo", "echo"}


def test_modules_are_imported_and_their_types_resolved(write_module: Callable[[str, str], None]) -> None:
    write_module(
        "shop_tasks",
        """
        from __future__ import annotations
        from pydantic import BaseModel
        from bobrai import Context, task

        @task("order")
        async def order(ctx: Context, payload: Order) -> int: ...

        class Order(BaseModel):
            number: int
        """,
    )
    loaded = registry.load(["shop_tasks"])
    handler = loaded.get("order")
    assert handler is not None
    assert '"number"' in handler.task_type.payload_schema
    assert registry.load(["shop_tasks"]) is loaded, "a second load is the same"


def test_package_that_declares_in_its_modules_is_fine(write_module: Callable[[str, str], None]) -> None:
    write_module("shop.orders", 'from bobrai import task\n@task("order")\ndef order() -> None: ...\n')
    write_module("shop.__init__", "from shop import orders\n")
    assert registry.load(["shop"]).get("order") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "declares no handler"),
        ("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("import sys\nsys.exit('not today')", "SystemExit: not today"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt ("),
        (
            "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
            "<broken_tasks.E that cannot be shown>",
        ),
        ("raise ValueError('x\\n' * 5_000_000)", "ValueError: x x"),
        ('from bobrai import task\n@task("bad name")\ndef f(): ...', "cannot be the name of a type"),
        ('from bobrai import task\n@task("t")\ndef f(payload: "Missing"): ...', "Missing"),
        ("from bobrai import Retry\nRetry(max_attempts=2.5)", "must be a whole number, not 2.5 ("),
        ("from bobrai import Retry\nRetry(max_attempts=2.5)", "broken_tasks.py, line 2)"),
    ],
)
def test_module_that_cannot_be_used_is_named_with_the_reason(
    write_module: Callable[[str, str], None], text: str, words: str
) -> None:
    write_module("broken_tasks", text)
    with pytest.raises(ConfigurationError) as caught:
        registry.load(["broken_tasks"])
    assert words in str(caught.value)
    assert "broken_tasks" in str(caught.value)
    assert len(str(caught.value)) < 3_000
    assert "\n" not in str(caught.value)


def test_module_that_declares_only_what_runs_around_handlers_is_fine(write_module: Callable[[str, str], None]) -> None:
    write_module("around", "from bobrai import middleware\n@middleware\nasync def m(ctx, payload, call_next): ...\n")
    write_module("opening", "from bobrai import on_startup\n@on_startup\nasync def opened(): ...\n")
    loaded = registry.load(["around", "opening"])
    assert (len(loaded.middlewares.all), len(loaded.hooks.startups)) == (1, 1)


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.tasks", "json.no_such_module"])
def test_module_that_does_not_exist_is_said_so(name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no module"):
        registry.load([name])


def test_where_a_handler_runs_and_its_memory_are_kept() -> None:
    handler = Handler(_payload, "large", runs_in="process", memory_mb=512)
    assert (handler.runs_in, handler.memory_bytes) == ("process", 512 * 1024 * 1024)
    assert (Handler(_payload, "small").runs_in, Handler(_payload, "small").memory_bytes) == (None, None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"runs_in": "thread"}, "runs_in of type 't' must be \"process\""),
        ({"memory_mb": 512}, 'needs runs_in="process"'),
        ({"runs_in": "process", "memory_mb": "512"}, "must be a whole number of MiB"),
        ({"runs_in": "process", "memory_mb": True}, "must be a whole number of MiB"),
        ({"runs_in": "process", "memory_mb": 63}, "must be 64 to 1048576, not 63"),
        ({"runs_in": "process", "memory_mb": 1024 * 1024 + 1}, "must be 64 to 1048576"),
    ],
)
def test_a_place_that_cannot_be_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Handler(_payload, "t", **more)
    assert words in str(caught.value)
