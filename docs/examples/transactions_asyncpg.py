"""An order and its task in one transaction, with asyncpg."""

import json

import asyncpg


async def place_order(connection: asyncpg.Connection, item: str) -> int:
    """Store an order, submit its task and take the item from the stock: all of it, or nothing."""
    async with connection.transaction():
        order = await connection.fetchval("INSERT INTO orders (item) VALUES ($1) RETURNING id", item)
        task_id: int = await connection.fetchval("SELECT bobrai_submit('confirm', $1)", json.dumps({"order": order}))
        await connection.execute("UPDATE stock SET pieces = pieces - 1 WHERE item = $1", item)
    return task_id
