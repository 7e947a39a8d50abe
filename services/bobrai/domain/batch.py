"""How many tasks of a type one call of its handler gets: a checked value, no I/O."""

from dataclasses import dataclass

from bobrai.domain import limits, pointer


@dataclass(frozen=True, slots=True)
class Batch:
    """The handler is called with up to ``size`` tasks, at the latest ``wait_seconds`` after the first of them.

    ``key`` is a JSON Pointer into the payload: one call gets only tasks with the same value there, and those that have
    none among themselves. Raises ValueError that says what to change.
    """

    size: int
    wait_seconds: float = 0.2
    key: str | None = None

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= limits.MAX_BATCH_SIZE:
            raise ValueError(f"size must be a whole number from 1 to {limits.MAX_BATCH_SIZE}, not {self.size!r}")
        most = limits.MAX_BATCH_WAIT_SECONDS
        if type(self.wait_seconds) not in {int, float} or not 0 <= self.wait_seconds <= most:
            raise ValueError(f"wait_seconds must be a number from 0 to {most}, not {self.wait_seconds!r}")
        if self.key is not None:
            pointer.check(self.key, '"/tenant"')
