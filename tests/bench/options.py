"""What a run measures, and how long: the command line as one value."""

import argparse
from dataclasses import dataclass

PEERS = ("dramatiq", "dramatiq-unconfirmed", "taskiq")
NAMES = ("echo", "single", "batch", "access", "places", "end-to-end", "idle", "memory", "full-tables", *PEERS)


@dataclass(frozen=True)
class Options:
    """Sizes and choices of one run."""

    names: frozenset[str]
    quick: bool
    profile: bool
    tasks: int
    requests: int
    warm_up: int
    repeats: int
    idle_seconds: int
    full_rows: int

    def wants(self, *names: str) -> bool:
        """Whether any of these is to be measured."""
        return not self.names.isdisjoint(names)


def parse(arguments: list[str]) -> Options:
    """Read the command line; wrong arguments end the process with a usage line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure speed, cost and latency.")
    parser.add_argument("--peers", action="store_true", help="measure Dramatiq and Taskiq beside it")
    parser.add_argument("--quick", action="store_true", help="small and only once: for development, not for figures")
    parser.add_argument("--profile", action="store_true", help="sample the product with py-spy; slows it down")
    parser.add_argument("--only", metavar="NAME,...", help=f"only some of: {', '.join(NAMES)}")
    given = parser.parse_args(arguments)
    names = {name for name in NAMES if given.peers or name not in PEERS}
    if given.only:
        names = set(given.only.split(","))
        if unknown := names - set(NAMES):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    sizes = (4_000, 4_000, 1_000, 1, 3, 50_000) if given.quick else (20_000, 20_000, 4_000, 3, 10, 1_000_000)
    return Options(frozenset(names), given.quick, given.profile, *sizes)
