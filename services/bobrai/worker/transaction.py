"""The handler's transaction: its own rows and its task's outcome in one commit, fenced.

In: ``ctx.transaction()`` of an attempt. Out: an open asyncpg connection, which the executor completes after the handler
has returned, or rolls back. Connections come from a pool of their own, so that handlers that hold one for long never
keep a claim or a completion waiting.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol

from bobrai.domain.task import Claim, Outcome
from bobrai.store import children
from bobrai.store.children import Parent
from bobrai.store.pool import Database
from bobrai.worker.children import Children, count


class Transaction(Protocol):
    """What a handler's ``async with`` opens, and the executor ends."""

    async def __aenter__(self) -> Any:
        """Begin, and return what the handler writes to."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Leave it open for the outcome, unless there was an error."""

    @property
    def is_open(self) -> bool:
        """Whether there is something to commit."""

    async def complete(self, worker_id: int, outcome: Outcome, claim: Claim, trace_context: str) -> None:
        """Write the outcome with what it leaves, and commit."""

    async def roll_back(self) -> None:
        """Undo everything; raises nothing."""

    def abort(self) -> None:
        """Let the statements of a handler that does not end fail."""


class AttemptTransaction:
    """One attempt's transaction; opened by the handler's ``async with``, ended by the executor."""

    def __init__(self, database: Database, places: asyncio.Semaphore, children_: Children) -> None:
        self._database = database
        self._places = places
        self._children = children_
        self._manager: AbstractAsyncContextManager[Any] | None = None
        self._connection: Any = None
        self._entered = False

    async def __aenter__(self) -> Any:
        """Wait for a connection, as long as the attempt may take, and begin."""
        if self._entered:
            raise RuntimeError("an attempt has one transaction: enter ctx.transaction() once")
        self._entered = True
        # The pool itself would give up after the connect timeout.
        await self._places.acquire()
        manager = self._database.transaction()
        try:
            self._connection = await manager.__aenter__()
        except BaseException:
            self._places.release()
            raise
        self._manager = manager
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Leave the transaction open for the outcome; after an error, roll back at once."""
        if error is not None:
            await self.roll_back()

    @property
    def is_open(self) -> bool:
        """Whether there is something to commit."""
        return self._manager is not None

    async def complete(self, worker_id: int, outcome: Outcome, claim: Claim, trace_context: str) -> None:
        """Write the outcome with what it leaves, and commit; raises ClaimLost when the claim is no longer held.

        ``trace_context`` says where the attempt stands in its trace. Raises ChildRefused when a task that it leaves
        cannot be made, and DatabaseUnavailable when it is unknown whether the commit took place; after other errors
        everything is rolled back.
        """
        manager, self._manager = self._manager, None
        if manager is None:
            return
        parent = Parent(outcome, ())
        try:
            try:
                if outcome.children:
                    parent = await self._children.of(outcome, claim, trace_context)
                duplicates = await children.complete_within(self._connection, worker_id, parent)
            except BaseException as error:
                await manager.__aexit__(type(error), error, error.__traceback__)
                raise
            await manager.__aexit__(None, None, None)
        finally:
            self._places.release()
        count(parent, duplicates)

    async def roll_back(self) -> None:
        """Undo everything; raises nothing."""
        manager, self._manager = self._manager, None
        if manager is None:
            return
        undo = _RollBack()
        try:
            await manager.__aexit__(_RollBack, undo, None)
        except Exception:  # noqa: BLE001, S110 - a connection that is gone has rolled back as well
            pass
        finally:
            self._places.release()

    def abort(self) -> None:
        """Cut the connection of a handler that does not end: its statements fail, and the server rolls back."""
        if self._manager is not None:
            self._connection.terminate()


class _RollBack(Exception):
    """Thrown into the transaction to end it without a commit."""
