"""``bobrai migrate``: the schema at head and the built-in task types announced, or the wait for both."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import SecretStr

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.domain.task import TaskType
from bobrai.handlers import builtin
from bobrai.settings import Settings
from bobrai.store import migrate, task_types
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_PAUSE_SECONDS = 1.0
Result = TypeVar("Result")


async def bring_to_head(
    settings: Settings, types: Sequence[TaskType] | None = None, *, patience_seconds: float = math.inf
) -> None:
    """Migrate, waiting for a database that is not up yet, and announce the given types, or else the built-in ones.

    Raises DatabaseUnavailable when the patience is over.
    """
    until = time.monotonic() + patience_seconds
    announced = builtin.types() if types is None else types
    url = settings.database.direct()
    changed = await _once_up(lambda: migrate.migrate(url), until)
    direct = settings.database.model_copy(update={"url": SecretStr(url)})
    database = Database(direct, pool_size=1, name="bobrai-migrate")
    await database.open()
    try:
        await _once_up(lambda: task_types.announce(database, announced), until)
    finally:
        await database.close()
    log.info("schema.migrated" if changed else "schema.current", revision=migrate.head())


async def wait_for_head(settings: Settings) -> None:
    """Return once the schema is at this release's revision or newer."""
    log.info("schema.awaited", revision=migrate.head())
    url = settings.database.direct()
    await _once_up(lambda: migrate.check(url), math.inf)


async def _once_up(attempt: Callable[[], Awaitable[Result]], until: float) -> Result:
    said = ""
    while True:
        try:
            return await attempt()
        except DatabaseUnavailable as error:
            if time.monotonic() > until:
                raise
            if said != str(error):
                said = str(error)
                log.warning("database.awaited", error=said)
            await asyncio.sleep(_PAUSE_SECONDS)
