"""What cannot be decoded is put aside, with a note, where an operator finds it.

In: malformed deliveries, from a subscription. Out: copies in the dead-letter queue; only then is the original acked. It
needs no policy on the broker. Nothing leaves the dead-letter queue by itself. The queue is declared at the start: by
the policies that `definitions.py` prints RabbitMQ moves messages there too, and without it they stay where they are.
"""

import asyncio
import contextlib
import struct
from datetime import UTC, datetime

import pamqp.frame
from aiormq import spec
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from bobrai.broker.consumer import Malformed
from bobrai.broker.link import SHORTEST_PAUSE, Backoff, Link
from bobrai.broker.publisher import Publisher
from bobrai.broker.queues import DEAD_LETTERS, Queues
from bobrai.domain.errors import BrokerUnavailable
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

MAX_REASON = 500  # characters
DECLARE_AGAIN_SECONDS = 30.0  # rarely: queues are declared one at a time, and those of tasks come first
_ROUTES_COPIES = {"CC", "BCC"}  # RabbitMQ would send the copy to the queues that these headers name


def _labelled(queue: str, malformed: Malformed) -> spec.Basic.Properties:
    """The properties of the copy: the original ones as far as they are harmless, and the reason."""
    note: FieldTable = {
        "bobrai-reason": malformed.reason[:MAX_REASON],
        "bobrai-queue": queue,
        "bobrai-at": datetime.now(UTC).isoformat(),
    }
    original = malformed.properties
    headers: FieldTable = {key: value for key, value in (original.headers or {}).items() if key not in _ROUTES_COPIES}
    properties = spec.Basic.Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        headers=headers | note,
        delivery_mode=2,
        message_id=original.message_id,
        app_id=original.app_id,
    )
    try:
        pamqp.frame.marshal(ContentHeader(0, len(malformed.body), properties), 1)
    except (TypeError, ValueError, OverflowError, struct.error):  # a stranger's headers, beyond our encoder
        return spec.Basic.Properties(headers=note, delivery_mode=2)
    return properties


class DeadLetters:
    """Keeps the dead-letter queue there, and moves malformed deliveries aside.

    Each moves in a task of its own; there are never more than a prefetch allows.
    """

    def __init__(self, link: Link, queues: Queues, publisher: Publisher) -> None:
        self._link = link
        self._queues = queues
        self._publisher = publisher
        self._moves: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to declare the queue on every new connection, in the background."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="broker-dead-letters")

    def take(self, queue: str, malformed: Malformed) -> None:
        """Move one delivery aside, in the background; until that has worked it stays unacked."""
        log.error("broker.message.malformed", queue=queue, reason=malformed.reason, size=len(malformed.body))
        move = asyncio.get_running_loop().create_task(self._move(queue, malformed))
        self._moves.add(move)
        move.add_done_callback(self._moves.discard)

    async def close(self) -> None:
        """Stop; what was not moved yet goes back to its queue."""
        keeper, self._keeper = self._keeper, None
        tasks = [*self._moves, *([keeper] if keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await self._link.wait_connected()
            with contextlib.suppress(BrokerUnavailable):  # the connection is on its way out
                lost = self._link.lost
                await asyncio.wait({lost}, timeout=None if await self._declare() else DECLARE_AGAIN_SECONDS)
            await asyncio.sleep(SHORTEST_PAUSE)

    async def _declare(self) -> bool:
        try:
            await self._queues.ensure(DEAD_LETTERS)
        except BrokerUnavailable as error:
            log.warning("broker.dead_letters.missing", reason=str(error))
            return False
        return True

    async def _move(self, queue: str, malformed: Malformed) -> None:
        content = (_labelled(queue, malformed), malformed.body)
        backoff = Backoff()
        while not malformed.ended.done():
            try:
                if await self._publisher.publish(DEAD_LETTERS, [content]) == [True]:
                    metrics.DEAD_LETTERED.labels(queue).inc()
                    malformed.settle()
                    return
                log.warning("broker.dead_letters.full", queue=queue)
            except BrokerUnavailable as error:
                log.warning("broker.dead_letters.unavailable", queue=queue, reason=str(error))
            except Exception:
                log.exception("broker.dead_letters.failed", queue=queue)
            await backoff.pause()
