"""A whole service in the test's process, with handlers of this test alone."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from bobrai import Batch, Context, Depends, Item, PermanentFailure, Retry
from bobrai.client import Client
from bobrai.handlers import registry
from bobrai.handlers.registry import Registry
from bobrai.testing.service import Service, service
from tests.support.databases import Database


class Letter(BaseModel):
    to: str
    copies: int = 1


class Handlers:
    """The declared functions, each submitted by itself."""

    def __init__(self, own: Registry) -> None:
        self.gate = asyncio.Event()

        @own.hooks.on_startup
        def greeting() -> str:
            return "hello"

        @own.task("greet")
        async def greet(ctx: Context, payload: str, *, word: Annotated[str, Depends(greeting)]) -> str:
            return f"{word} {payload}"

        @own.task("letter", queue="mail")
        def letter(payload: Letter) -> Letter:
            return Letter(to=payload.to, copies=payload.copies + 1)

        @own.task("doubled", batch=Batch(size=10, wait_seconds=0.05))
        async def doubled(items: list[Item[int]]) -> list[int]:
            return [item.payload * 2 for item in items]

        @own.task("nothing")
        async def nothing() -> None: ...

        @own.task("fails", retry=Retry(max_attempts=2, delay_seconds=0.01, jitter=0))
        async def fails(ctx: Context, payload: str) -> None:
            raise (PermanentFailure if payload == "for good" else ValueError)(f"attempt {ctx.attempt}")

        self.greet, self.letter, self.doubled, self.nothing, self.fails = greet, letter, doubled, nothing, fails


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Handlers:
    own = Registry()
    monkeypatch.setattr(registry, "default", own)
    return Handlers(own)


@pytest.fixture
def running(handlers: Handlers, database: Database) -> Iterator[Service]:
    with service(database.url, []) as running:
        yield running


@pytest.fixture
def client(running: Service) -> Client:
    return running.client


def said(error: Any) -> str:
    """What an exception's text says."""
    return str(error.value)
