"""An order and its task in one transaction, with psycopg 3."""

import psycopg
from psycopg.types.json import Json


def place_order(connection: psycopg.Connection, item: str) -> int:
    """Store an order, submit its task and take the item from the stock: all of it, or nothing."""
    with connection.transaction():
        (order,) = connection.execute("INSERT INTO orders (item) VALUES (%s) RETURNING id", [item]).fetchone()
        submit = "SELECT bobrai_submit('confirm', %s, max_attempts => %s)"
        (task_id,) = connection.execute(submit, [Json({"order": order}), 5]).fetchone()
        connection.execute("UPDATE stock SET pieces = pieces - 1 WHERE item = %s", [item])
    return task_id
