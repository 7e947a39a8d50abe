"""An API that lets nobody in without a key, and keys as tests want them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bobrai.access import issuing
from bobrai.domain.access import ALL_SCOPES, UNBOUNDED, Allowance, Grant, Scope
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, client_of
from tests.integration.api.conftest import store as store
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

QUEUES = "/api/v1/queues"
CLOSED = {"anonymous_scopes": "none"}
WORKING = tuple(sorted(ALL_SCOPES - {Scope.ADMIN}))


class Keys:
    """Makes keys in the test's database."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._made = 0

    async def make(
        self,
        *scopes: str,
        expires_seconds: float | None = None,
        allowance: Allowance = UNBOUNDED,
        **narrowed: Any,
    ) -> issuing.Issued:
        """A key with these scopes, all but admin when there are none."""
        self._made += 1
        grant = Grant.of(scopes or WORKING, **narrowed)
        return await issuing.create(
            self._store, f"test {self._made}", grant, allowance, expires_seconds=expires_seconds, by=SOMEBODY
        )


def bearer(secret: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {secret}"}


async def status(api: Api, secret: str, path: str = QUEUES) -> int:
    """What a request with this key is answered."""
    return (await api.get(path, headers=bearer(secret))).status_code


async def refused(api: Api, secret: str, path: str = QUEUES) -> bool:
    """Whether the API knows that this key proves nothing, or no longer."""
    return await status(api, secret, path) == 401


async def notify(store: Database) -> None:
    """Tell every process that keys have changed, as the product does with a change of its own."""
    await store.fetch("SELECT pg_notify('bobrai_access', '')")


@asynccontextmanager
async def closed_api(url: str, port: int, **auth: Any) -> AsyncIterator[Api]:
    """A client of an API that wants a credential."""
    async with client_of(url, port, auth={**CLOSED, **auth}) as client:
        yield client


@pytest.fixture
def keys(store: Database) -> Keys:
    """Keys of the test's database."""
    return Keys(store)


@pytest.fixture
async def api(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API that wants a credential."""
    async with closed_api(database.url, free_port()) as client:
        yield client
