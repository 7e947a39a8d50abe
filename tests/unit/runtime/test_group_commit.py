"""Proves that a group commit forgets no item, whenever it comes."""

import asyncio
from collections.abc import Sequence

from bobrai.runtime.group_commit import GroupCommit


async def test_item_that_comes_while_a_flusher_ends_is_written() -> None:
    """An answer's callback that puts the next item ran between the flusher's last look and its removal."""
    written: list[int] = []

    async def flush(items: Sequence[int]) -> Sequence[int]:
        written.extend(items)
        return items

    group: GroupCommit[int, int] = GroupCommit("test", flush)
    second: asyncio.Future[asyncio.Future[int]] = asyncio.get_running_loop().create_future()
    group.put(1).add_done_callback(lambda _: second.set_result(group.put(2)))
    async with asyncio.timeout(2):
        assert await (await second) == 2
    assert written == [1, 2]
    await group.idle()
