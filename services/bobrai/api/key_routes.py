"""The handlers of /keys: making, listing, rotating and revoking API keys.

In: a Request of an administrator. Out: a Reply; the two that carry a secret must not be kept by anything on the way.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from bobrai.access import issuing
from bobrai.access.issuing import Issued
from bobrai.api import bodies_of, key_view, problems, schemas, views
from bobrai.api.problems import Fault, Problem
from bobrai.api.web import Reply, Request
from bobrai.domain import limits
from bobrai.domain.access import Allowance, Grant
from bobrai.store import keys
from bobrai.store.pool import Record, Transactional

_PATH: Final = "/api/v1/keys"
_SECRET: Final = ((b"cache-control", b"no-store"),)


class KeyRoutes:
    """Handlers of keys; ``changed`` is awaited after a change, so that this process knows it at once."""

    def __init__(self, database: Transactional, changed: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._changed = changed

    async def create(self, request: Request) -> Reply:
        """Make a key and show its secret."""
        schemas.query(schemas.NoQuery, request.query_string)
        wish = bodies_of.wish(request.body, schemas.KeyWish)
        if wish.expires_at is not None and wish.expires_seconds is not None:
            raise problems.invalid([Fault("", "must have expires_at or expires_seconds, not both")])
        if wish.expires_at is not None:
            _check_end(wish.expires_at)
        issued = await issuing.create(
            self._database,
            wish.name,
            *_checked(wish),
            expires_at=wish.expires_at,
            expires_seconds=wish.expires_seconds,
            by=request.author,
        )
        location = (b"location", f"{request.prefix}{_PATH}/{issued.key_id}".encode("ascii"))
        return await self._with_secret(issued, 201, location)

    async def list_all(self, request: Request) -> Reply:
        """Return every key, without secrets."""
        schemas.query(schemas.NoQuery, request.query_string)
        return Reply(views.encode(key_view.KeyList([key_view.key(row) for row in await keys.every(self._database)])))

    async def read(self, request: Request) -> Reply:
        """Return one key, without its secret; one that was revoked is gone, but for the list."""
        schemas.query(schemas.NoQuery, request.query_string)
        row = await self._row(_id_of(request))
        if row["revoked_at"] is not None:
            raise _not_found()
        return Reply(views.encode(key_view.key(row)))

    async def rotate(self, request: Request) -> Reply:
        """Give a key another secret and show it."""
        schemas.query(schemas.NoQuery, request.query_string)
        wish = bodies_of.wish(request.body or b"{}", schemas.KeyRotation)
        issued = await issuing.rotate(
            self._database, _id_of(request), grace_seconds=wish.grace_seconds, by=request.author
        )
        if issued is None:
            raise _not_found()
        return await self._with_secret(issued, 200)

    async def revoke(self, request: Request) -> Reply:
        """End a key for good."""
        schemas.query(schemas.NoQuery, request.query_string)
        key_id = _id_of(request)
        if not await keys.revoke(self._database, key_id, by=request.author):
            await self._row(key_id)  # it was revoked before: the same answer again
        await self._changed()
        return Reply(status=204)

    async def _with_secret(self, issued: Issued, status: int, *headers: tuple[bytes, bytes]) -> Reply:
        await self._changed()
        view = key_view.key_with_secret(await self._row(issued.key_id), issued.secret)
        return Reply(views.encode(view), status, (*_SECRET, *headers))

    async def _row(self, key_id: str) -> Record:
        row = await keys.get(self._database, key_id)
        if row is None:
            raise _not_found()
        return row


def _checked(wish: schemas.KeyWish) -> tuple[Grant, Allowance]:
    try:
        return (
            Grant.of(wish.scopes, queues=wish.queues, types=wish.types, own_tasks=wish.own_tasks),
            Allowance.of(rate=wish.rate, burst=wish.burst, max_waiting=wish.max_waiting),
        )
    except ValueError as error:
        raise problems.invalid([Fault("", str(error))]) from error


def _check_end(expires_at: datetime) -> None:
    left = (expires_at - datetime.now(UTC)).total_seconds()
    if left <= 0:
        raise Problem("key-refused", "expires_at must be in the future")
    if left > limits.MAX_KEY_LIFE_SECONDS:
        years = limits.MAX_KEY_LIFE_SECONDS // (366 * 86_400)
        raise Problem("key-refused", f"expires_at must be within {years} years, or left out for a key without end")


def _id_of(request: Request) -> str:
    key_id = request.params["key_id"]
    if not (key_id.isascii() and key_id.isalnum()):
        raise _not_found()
    return key_id


def _not_found() -> Problem:
    return Problem("key-not-found", "No key that can be used has this id; one that has ended may have had it")
