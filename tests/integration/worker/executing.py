"""An executor without a worker around it: claims go in, outcomes come out."""

import contextlib
import itertools
from typing import Any

import psutil
from msgspec import structs

from bobrai.domain.retry import Retry
from bobrai.domain.task import Claim, Outcome
from bobrai.worker.executor import Executor
from tests.support.eventually import eventually

_ids = itertools.count(1)
CLAIM = Claim(1, 1, "", "default", 0, "null", 4, 0, Retry(jitter=0.0), 30.0, "", "", 0.0, 0.0)


class Outcomes:
    """What an executor gives out."""

    def __init__(self) -> None:
        self.all: list[Outcome | None] = []
        self.settled: Any = None

    def write(self, attempt: Any, outcome: Outcome) -> None:
        self.all.append(outcome)
        self.settled(attempt)

    def written(self, attempt: Any, outcome: Outcome, status: str) -> None:
        self.all.append(outcome)
        self.settled(attempt)

    def lost(self, attempt: Any) -> None:
        self.all.append(None)
        self.settled(attempt)


class Nothing:
    """A delivery that waits for nothing, and reports that nobody makes."""

    def settle(self) -> None: ...

    def take(self, _task_id: int, _attempt: int) -> None: ...

    def report(self, _task_id: int, _attempt: int, _text: str) -> None: ...


def start(executor: Executor, type_: str, payload: str = "null", **more: Any) -> int:
    """Admit a task and return its id."""
    task_id = next(_ids)
    executor.admit(structs.replace(CLAIM, task_id=task_id, type=type_, payload=payload, **more), Nothing(), worker_id=1)
    return task_id


async def outcome_of(executor: Executor, type_: str, payload: str = "null", **more: Any) -> Any:
    """Run a task and return how it ended."""
    return await end_of(executor, start(executor, type_, payload, **more))


async def end_of(executor: Executor, task_id: int) -> Any:
    """Return how a task ended."""
    there: list[Outcome | None] = executor.completions.all  # type: ignore[attr-defined]

    def ended() -> Outcome | None:
        return next((each for each in there if each is not None and each.task_id == task_id), None)

    return await eventually(ended, 30)


def processes() -> list[psutil.Process]:
    """The processes in which attempts run, and the one that forks them; those that have ended are none."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not {"isolated", "fork-server"}.isdisjoint(each.cmdline()):
                found.append(each)
    return found
