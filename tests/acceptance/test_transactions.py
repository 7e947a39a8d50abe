"""The examples of docs/transactions.md as an application runs them: through PgBouncer in transaction mode.

Beside them runs a service that looks at the outbox when it is told to, and else once in ten minutes.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from docs.examples import transactions_asyncpg, transactions_psycopg, transactions_sqlalchemy
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import REPOSITORY, Processes

HANDLERS = """
from bobrai import task

@task("confirm")
async def confirm(payload: dict[str, int]) -> int:
    return payload["order"]
"""
ORDERS = """
CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL);
CREATE TABLE stock (item text PRIMARY KEY, pieces integer NOT NULL CHECK (pieces >= 0));
INSERT INTO stock VALUES ('book', 8), ('globe', 0);
"""
PIECES = 8  # drivers prepare a statement that they see again and again

Order = Callable[[str], Awaitable[int]]


@pytest.fixture
async def service(database: Database, processes: Processes, tmp_path: Path) -> None:
    """Everything in one process on the test's database, with the tables of an application beside it."""
    (tmp_path / "order_tasks.py").write_text(HANDLERS)
    processes.environment |= {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_DISPATCHER_POLL_SECONDS": "600",
    }
    await database.execute(ORDERS)
    processes.start("dev", "--handlers", "order_tasks")


@asynccontextmanager
async def with_asyncpg(url: str) -> AsyncIterator[Order]:
    connection = await asyncpg.connect(url)
    yield lambda item: transactions_asyncpg.place_order(connection, item)
    await connection.close()


@asynccontextmanager
async def with_psycopg(url: str) -> AsyncIterator[Order]:
    with psycopg.connect(url, autocommit=True) as connection:

        async def order(item: str) -> int:
            return transactions_psycopg.place_order(connection, item)

        yield order


@asynccontextmanager
async def with_sqlalchemy(url: str) -> AsyncIterator[Order]:
    engine = create_async_engine(re.sub("^postgresql", "postgresql+asyncpg", url))
    yield lambda item: transactions_sqlalchemy.place_order(engine, item)
    await engine.dispose()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("driver", "refusal"),
    [
        (with_asyncpg, asyncpg.CheckViolationError),
        (with_psycopg, psycopg.errors.CheckViolation),
        (with_sqlalchemy, IntegrityError),
    ],
    ids=["asyncpg", "psycopg", "sqlalchemy"],
)
async def test_a_commit_makes_one_task_that_runs_at_once_and_a_rollback_none(
    database: Database, driver: Any, refusal: type[Exception]
) -> None:
    async with driver(database.pooled_url) as order:
        ids = []
        for _ in range(PIECES):
            with pytest.raises(refusal):
                await order("globe")  # there is none left, as the last statement of the transaction finds
            ids.append(await order("book"))
            await eventually(lambda: database.fetchval("SELECT status = 'done' FROM tasks WHERE id = $1", ids[-1]), 30)
    rows = await database.fetch(
        "SELECT t.id, item, attempt, client_id FROM tasks AS t FULL JOIN orders AS o ON o.id = t.result::text::int"
    )
    assert sorted(row["id"] for row in rows) == ids
    assert {(row["item"], row["attempt"], row["client_id"]) for row in rows} == {("book", 1, "sql:postgres")}


def test_the_page_shows_the_examples_as_they_are() -> None:
    page = (REPOSITORY / "docs" / "transactions.md").read_text()
    for example in sorted((REPOSITORY / "docs" / "examples").glob("transactions_*.py")):
        assert f"```python\n{example.read_text()}```" in page, f"docs/transactions.md differs from {example.name}"
