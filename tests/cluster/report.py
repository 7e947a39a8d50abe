"""The table at the end: a row for each case with what was seen, also for one that failed or was not run."""

import textwrap
from dataclasses import dataclass

WIDTH = 100
NAME, OUTCOME, SECONDS = 20, 8, 5


class NotRun(Exception):
    """The case cannot be tried here; the message says why. It is no pass."""


@dataclass(frozen=True)
class Row:
    """One case."""

    name: str
    outcome: str
    """passed, FAILED or not run."""
    seconds: float
    seen: str

    def lines(self) -> list[str]:
        """The row, its last column wrapped."""
        head = f"{self.name:<{NAME}} {self.outcome:<{OUTCOME}} {self.seconds:>{SECONDS}.0f} "
        seen = textwrap.wrap(self.seen, WIDTH - len(head), break_on_hyphens=False) or [""]
        return [f"{head}{seen[0]}", *(" " * len(head) + line for line in seen[1:])]


def table(rows: list[Row]) -> str:
    """The table and one line that sums it up."""
    head = f"{'case':<{NAME}} {'outcome':<{OUTCOME}} {'s':>{SECONDS}} seen"
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("passed", "FAILED", "not run")}
    total = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    body = [line for row in rows for line in row.lines()]
    return "\n".join([head, "-" * WIDTH, *body, "-" * WIDTH, f"{total} in {sum(row.seconds for row in rows):.0f} s"])
