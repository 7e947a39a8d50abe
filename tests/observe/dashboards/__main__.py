"""Writes charts/bobrai/dashboards/*.json, or with `--check` says which of them differ from what this package makes."""

import json
import sys
from pathlib import Path

from tests.observe.dashboards import ALL

FOLDER = Path(__file__).parents[3] / "charts" / "bobrai" / "dashboards"


def files() -> dict[Path, str]:
    """Each file and what belongs into it."""
    return {FOLDER / f"{each.slug}.json": json.dumps(each.to_json(), indent=1) + "\n" for each in ALL}


def main(arguments: list[str]) -> int:
    """Write, or check; returns the exit code."""
    made = files()
    if arguments != ["--check"]:
        FOLDER.mkdir(exist_ok=True)
        for strange in set(FOLDER.glob("*.json")) - set(made):
            strange.unlink()
        for path, text in made.items():
            path.write_text(text)
        return 0
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
    stale += [path.name for path in set(FOLDER.glob("*.json")) - set(made)]
    if stale:
        print(f"charts/bobrai/dashboards is out of date ({', '.join(sorted(stale))}): run 'make docs'")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
