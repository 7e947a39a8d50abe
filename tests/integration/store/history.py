"""Every change of a task's status, written down by a trigger that only tests have."""

from typing import NamedTuple

from bobrai.domain.task import TRANSITIONS, TaskStatus
from bobrai.store.pool import Database

_INSTALL = """
CREATE TABLE history (
    number bigint GENERATED ALWAYS AS IDENTITY, task_id bigint, old text, new text, old_attempt int, new_attempt int);
CREATE FUNCTION note_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (task_id, old, new, old_attempt, new_attempt)
    VALUES (new.id, old.status, new.status, old.attempt, new.attempt);
    RETURN NULL;
END $$;
CREATE TRIGGER note_history AFTER UPDATE ON tasks FOR EACH ROW
    WHEN (old.status IS DISTINCT FROM new.status) EXECUTE FUNCTION note_history();
"""


class Change(NamedTuple):
    """One change of one task."""

    task_id: int
    old: str
    new: str
    old_attempt: int
    new_attempt: int


class History:
    """What happened to the tasks of one database."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def install(self) -> None:
        """Begin to write down."""
        for part in _INSTALL.split(";\nCREATE "):
            await self._store.fetch(part if part.lstrip().startswith("CREATE") else f"CREATE {part}")

    async def changes(self, task_id: int | None = None) -> list[Change]:
        """Return all changes, or those of one task, in the order in which they were made."""
        rows = await self._store.fetch(
            "SELECT task_id, old, new, old_attempt, new_attempt FROM history"
            " WHERE $1::bigint IS NULL OR task_id = $1 ORDER BY number",
            task_id,
        )
        return [Change(*row) for row in rows]

    async def statuses(self, task_id: int) -> list[str]:
        """Return the statuses that one task reached, in order."""
        return [change.new for change in await self.changes(task_id)]

    async def check(self) -> None:
        """Fail when a change is not in the table of transitions, or counts attempts so that the fence breaks."""
        for change in await self.changes():
            old, new = TaskStatus(change.old), TaskStatus(change.new)
            assert new in TRANSITIONS[old], f"{change} is no transition"
            risen = change.new_attempt - change.old_attempt
            if new is TaskStatus.PROCESSING:
                assert risen == 1, f"{change}: a claim starts the next attempt"
            elif old is TaskStatus.PROCESSING and new is TaskStatus.PENDING:
                assert risen in {0, -1}, f"{change}: only an interrupted attempt is given back"
            else:
                assert risen == 0, f"{change}: nothing else counts attempts"
