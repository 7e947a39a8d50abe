"""What ``ctx.transaction()`` is where a test has no database: whatever the test gives."""

from types import TracebackType
from typing import Any

from bobrai.domain.task import Claim, Outcome


class GivenTransaction:
    """Hands out the test's own connection; commit and rollback are only noted by how the attempt ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_open = False

    async def __aenter__(self) -> Any:
        """Return the connection; raises RuntimeError when the test has given none, or for a second time."""
        if self._connection is None:
            raise RuntimeError(
                "ctx.transaction() needs a database: give run(…, connection=…) a stand-in, or use the fixture "
                "bobrai_service"
            )
        if self.is_open:
            raise RuntimeError("an attempt has one transaction: enter ctx.transaction() once")
        self.is_open = True
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Leave it open for the outcome, unless something was raised."""
        self.is_open = error is None

    async def complete(self, worker_id: int, outcome: Outcome, claim: Claim, trace_context: str) -> None:
        """Do as if it was committed."""
        self.is_open = False

    async def roll_back(self) -> None:
        """Do as if it was undone."""
        self.is_open = False

    def abort(self) -> None:
        """There is no connection to be cut."""
