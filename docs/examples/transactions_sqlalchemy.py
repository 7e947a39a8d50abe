"""An order and its task in one transaction, with SQLAlchemy 2; `text` says the same to a Session."""

import json
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

ORDER = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
SUBMIT = text("SELECT bobrai_submit('confirm', CAST(:payload AS json), timeout => :timeout)")
TAKE = text("UPDATE stock SET pieces = pieces - 1 WHERE item = :item")


async def place_order(engine: AsyncEngine, item: str) -> int:
    """Store an order, submit its task and take the item from the stock: all of it, or nothing."""
    async with engine.begin() as connection:
        order = await connection.scalar(ORDER, {"item": item})
        wish = {"payload": json.dumps({"order": order}), "timeout": timedelta(seconds=30)}
        task_id: int = await connection.scalar(SUBMIT, wish)
        await connection.execute(TAKE, {"item": item})
    return task_id
