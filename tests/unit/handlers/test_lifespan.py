"""Start-up functions, dependencies and middleware: what may be declared, and what is said of the rest."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest

from bobrai import CallNext, Context, Depends
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers.registry import Registry


async def pool() -> AsyncIterator[str]:
    yield "pool"


def cache(there: Annotated[str, Depends(pool)]) -> str:
    return f"cache in {there}"


async def mine(ctx: Context, payload: int, *, there: Annotated[str, Depends(cache)], size: int = 3) -> str:
    return f"{payload} in {there}"


def test_what_depends_on_something_is_started_behind_it() -> None:
    registry = Registry()
    for function in (cache, pool):
        registry.hooks.on_startup(function)
    registry.task("mine")(mine)
    registry.resolve()
    assert registry.hooks.in_order() == [pool, cache]


def test_a_module_that_is_imported_twice_starts_once() -> None:
    registry = Registry()
    for _ in range(2):
        registry.hooks.on_startup(pool)
        registry.hooks.on_shutdown(nothing)
        registry.middlewares.middleware(plain_middleware)
    assert (registry.hooks.startups, registry.hooks.shutdowns) == ([pool], [nothing])
    assert registry.middlewares.all == [plain_middleware]


def nothing() -> None: ...


async def plain_middleware(ctx: Context, payload: Any, call_next: CallNext) -> Any:
    return await call_next(payload)


async def first(there: "Annotated[str, Depends(second)]") -> str:
    return there


async def second(there: "Annotated[str, Depends(first)]") -> str:
    return there


async def wants_nobody(payload: int, *, there: int) -> None: ...


async def wants_more(there: int) -> None: ...


async def two(ctx: Context, call_next: CallNext) -> None: ...


def yields() -> Any:
    yield


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (
            lambda registry: registry.task("mine")(mine),
            "depends on .*cache, which nobody starts: put @on_startup above",
        ),
        (lambda registry: registry.hooks.on_startup(cache), "depends on .*pool, which nobody starts"),
        (
            lambda registry: registry.task("x")(wants_nobody),
            "the parameter 'there' after the \\*, which is not Annotated",
        ),
        (lambda registry: registry.hooks.on_startup(wants_more), "has the parameter 'there', which is not Annotated"),
        (
            lambda registry: [registry.hooks.on_startup(each) for each in (first, second)],
            "in a circle: .*first > .*second",
        ),
        (lambda registry: registry.hooks.on_startup(print), "@on_startup belongs on a function"),
        (lambda registry: registry.hooks.on_shutdown(cache), "has parameters; what @on_shutdown runs has none"),
        (lambda registry: registry.hooks.on_shutdown(yields), "yields: put @on_startup above it"),
        (lambda registry: registry.middlewares.middleware(nothing), "@middleware belongs on an `async def`"),
        (lambda registry: registry.middlewares.middleware(two), "it takes \\(ctx, payload, call_next\\)"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(declare: Callable[[Registry], Any], said: str) -> None:
    def start() -> None:
        registry = Registry()
        declare(registry)
        registry.resolve()

    with pytest.raises(ConfigurationError, match=said):
        start()
