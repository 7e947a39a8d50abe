"""The product's pool, which counts statements of one kind."""

from typing import Any

from bobrai.settings import DatabaseSettings
from bobrai.store.pool import Database, Record


class CountingDatabase(Database):
    """A Database that counts in ``count`` how often statements with these words are to be run."""

    def __init__(self, settings: DatabaseSettings, words: str) -> None:
        super().__init__(settings)
        self.count = 0
        self._words = words

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """Run one statement."""
        self.count += self._words in query
        return await super().fetch(query, *args, timeout=timeout)
