"""A trigger that refuses rows of tasks, with an error or silently, as a database administrator's may."""

from typing import Final

from bobrai.store.pool import Database

_RAISE: Final = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF {condition} THEN RAISE EXCEPTION 'not today' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION refuse()
"""

_IGNORE: Final = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF {condition} THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION refuse()
"""


async def refuse(store: Database, sqlstate: str, condition: str = "true") -> None:
    """Refuse the rows for which the condition (of OLD and NEW) holds, until ``allow``."""
    async with store.transaction() as connection:
        await connection.execute(_RAISE.format(sqlstate=sqlstate, condition=condition))


async def ignore(store: Database, condition: str = "true") -> None:
    """Leave the rows for which the condition holds as they are, without a word, until ``allow``."""
    async with store.transaction() as connection:
        await connection.execute(_IGNORE.format(condition=condition))


async def allow(store: Database) -> None:
    """Refuse nothing more."""
    await store.fetch("DROP TRIGGER refuse ON tasks")
