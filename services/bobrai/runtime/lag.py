"""How late the event loop is: what every request and every task waits for on top of its own work.

In: a running loop. Out: four observations a second.
"""

import asyncio
from typing import Final

from bobrai.telemetry import metrics

PERIOD_SECONDS: Final = 0.25


async def watch() -> None:
    """Measure for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + PERIOD_SECONDS
        await asyncio.sleep(PERIOD_SECONDS)
        metrics.LOOP_LAG_SECONDS.observe(max(loop.time() - due, 0.0))
