"""Notices that the main event loop stands still, and where: a handler blocks it.

In: a tick that the main loop answers, asked for from the heartbeat's thread. Out: one log line with the main thread's
stack when it has been still for too long, one with the total when it goes on, and a figure for /livez.
"""

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from types import FrameType

from bobrai.telemetry import logs, metrics
from bobrai.worker.attempt import Attempt

log = logs.get_logger(__name__)

_FRAMES = 20


class LoopWatch:
    """Watches the event loop in which it was made."""

    def __init__(self, blocked_seconds: float) -> None:
        self._blocked_seconds = blocked_seconds
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._asked_at: float | None = None  # when the unanswered tick was sent
        self._reported: dict[str, object] | None = None  # what was said of the block under way

    @property
    def blocked_for(self) -> float:
        """Seconds since the main loop should have answered; 0 when it has."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    async def watch(self) -> None:
        """Ask and look, for ever; run this in another thread's loop."""
        period = min(self._blocked_seconds / 4, 0.5)
        while True:
            if self._asked_at is None:
                self._asked_at = time.monotonic()
                with contextlib.suppress(RuntimeError):  # the main loop is closed: the process is about to end
                    self._loop.call_soon_threadsafe(self._answer)
            before = time.monotonic()
            await asyncio.sleep(period)
            overslept = time.monotonic() - before - period
            if overslept > period and self._asked_at is not None:
                # The whole process was held up (suspended, or starved of CPU), not the loop alone.
                self._asked_at = min(self._asked_at + overslept, time.monotonic())
            if self._reported is None and self.blocked_for > self._blocked_seconds:
                self._report()

    def _answer(self) -> None:
        blocked_for, self._asked_at = self.blocked_for, None
        reported, self._reported = self._reported, None
        if reported is not None:
            log.warning("handler.unblocked", seconds=round(blocked_for, 3), **reported)

    def _report(self) -> None:
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - the documented way to another thread's stack
        fields = _attempt_fields(frame)
        stack = "".join(traceback.format_stack(frame, limit=_FRAMES)) if frame is not None else ""
        self._reported = fields
        metrics.HANDLER_BLOCKED.inc()
        log.warning("handler.blocked", seconds=round(self.blocked_for, 3), stack=stack, **fields)


def _attempt_fields(frame: FrameType | None) -> dict[str, object]:
    """Return which attempt the stack belongs to; nothing when it is not a handler that blocks."""
    while frame is not None:
        attempt = frame.f_locals.get("attempt") if frame.f_globals.get("__name__") == "bobrai.worker.executor" else None
        if isinstance(attempt, Attempt):
            return attempt.fields()
        frame = frame.f_back
    return {}
