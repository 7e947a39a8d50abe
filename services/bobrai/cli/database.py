"""The database for a command that looks into it or changes it for a person, and who that person is.

In: the settings, or what `bobrai dev` has left in its folder. Out: what the work returns.
"""

import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from bobrai.cli import process
from bobrai.domain.audit import Author
from bobrai.domain.errors import ConfigurationError
from bobrai.settings import Settings
from bobrai.store.embedded import EmbeddedPostgres
from bobrai.store.pool import Database

Result = TypeVar("Result")


def author() -> Author:
    """Return who runs the command, for people who ask later."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        name = str(os.getuid())
    return Author(f"cli:{name}", name)


def with_database(work: Callable[[Database], Awaitable[Result]], *, command: str = "keys") -> Result:
    """Run something with the database of the settings, or with the embedded one that `bobrai dev` has made here."""
    settings = process.settings(command, has_result=True)
    if settings.database.url.get_secret_value():
        return _run(settings, work)
    folder = Path(settings.data_dir).resolve()
    if not (folder / "postgresql").exists():
        raise ConfigurationError(
            f"BOBRAI_DATABASE_URL is not set, and there is no data of `bobrai dev` in {folder}: set one of it or "
            "BOBRAI_DATA_DIR"
        )
    embedded = EmbeddedPostgres(folder)
    try:
        own: dict[str, Any] = {"url": SecretStr(embedded.start()), "user": "", "password": SecretStr("")}
        database = settings.database.model_copy(update=own)
        return _run(settings.model_copy(update={"database": database}), work)
    finally:
        embedded.stop()


def _run(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    results: list[Result] = []

    async def body() -> None:
        database = Database(settings.database, name="bobrai-cli")
        await database.open()
        try:
            results.append(await work(database))
        finally:
            await database.close()

    process.run_until_stopped(body())
    return results[0]
