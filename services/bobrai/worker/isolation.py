"""Says which attempts run in processes of their own, and what each may take.

In: claims. Out: places. A type that is declared so always has one. A task that was lost with a worker has one from then
on, so that the next death names its culprit and hurts nobody else: of these as many run at once as memory allows.
"""

from collections.abc import Callable

from bobrai.domain.errors import ConfigurationError
from bobrai.domain.task import Claim
from bobrai.handlers.handler import Handler
from bobrai.handlers.registry import Registry, default
from bobrai.settings import Settings
from bobrai.telemetry import metrics
from bobrai.worker import memory
from bobrai.worker.guard import MemoryGuard
from bobrai.worker.place import Around, Place
from bobrai.worker.processes import Processes


def check(registry: Registry) -> None:
    """Raise ConfigurationError when a type runs in processes and is in no module, where another could find it."""
    for handler in registry if registry is not default else ():
        if handler.runs_in == "process":
            raise ConfigurationError(f"{handler.where} runs in a process: declare it with bobrai.task, in a module")


class Isolation:
    """The places of this worker."""

    def __init__(self, settings: Settings, on_progress: Callable[[int, int, str], None]) -> None:
        self._most = min(settings.worker.isolated, settings.worker.concurrency)
        self._processes = Processes(settings)
        container = memory.container()
        self._around = Around(self._processes, MemoryGuard(container), container, on_progress, self._leave)
        self._plan = memory.Plan(self._most)
        self._suspects: set[Place] = set()
        metrics.TASKS_ISOLATED.set_function(lambda: len(self._suspects))

    def isolates(self, handler: Handler) -> bool:
        """Return whether a suspect of this type, or any of its tasks, needs a place."""
        return handler.runs_in == "process" or self._most > 0

    def place_for(self, claim: Claim, handler: Handler | None = None) -> Place | None:
        """Return a place, to be freed by ``leave``; None when there is none now.

        ``handler`` is that of a type which always runs in a process; without it the task is a suspect.
        """
        if handler is not None and handler.runs_in == "process":
            return Place(self._around, claim, handler.memory_bytes, is_declared=True)
        if not self._suspects:
            self._plan = self._planned()
        plan = self._plan
        # Where the first place of several was too small for it, the next one gets all the memory there is.
        whole = plan.places > 1 and (claim.failures > 0 or claim.attempt >= claim.max_attempts)
        whole = whole and plan.whole_bytes is not None
        if whole and self._suspects:
            return None
        if len(self._suspects) >= plan.places or any(place.is_whole for place in self._suspects):
            return None
        bytes_ = plan.whole_bytes if whole else plan.share_bytes
        place = Place(self._around, claim, bytes_, is_declared=False, is_whole=whole)
        self._suspects.add(place)
        return place

    def keep_warm(self) -> None:
        """Have a process ready for the next attempt from now on."""
        self._processes.keep_warm()

    def close(self) -> None:
        """End all processes."""
        self._processes.close()

    def _leave(self, place: Place) -> None:
        self._suspects.discard(place)

    def _planned(self) -> memory.Plan:
        container = self._around.container
        limit, used = (None, 0) if container is None else (container.limit, container.used())
        # What waits for a task is not beside it.
        used = max(0, used - self._processes.idle_bytes())
        return memory.plan(self._most, limit=limit, used=used, resident=memory.resident_bytes())
