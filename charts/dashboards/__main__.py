"""Writes charts/bobrai/dashboards/*.json, or with `--check` says which of them differ from what this package makes."""

import json
import sys
from pathlib import Path

from charts.dashboards import ALL

FOLDER = Path(__file__).parents[1] / "bobrai" / "dashboards"


def files() -> dict[Path, str]:
    """Each file and what belongs into it."""
    return {FOLDER / f"{each.slug}.json": json.dumps(each.to_json(), indent=1) + "\n" for each in ALL}


def write() -> None:
    """Make the folder hold these files and no other."""
    made = files()
    FOLDER.mkdir(exist_ok=True)
    for strange in set(FOLDER.glob("*.json")) - set(made):
        strange.unlink()
    for path, text in made.items():
        path.write_text(text)


def stale() -> list[str]:
    """The names of the files that are missing, different, or too many."""
    made = files()
    found = {path: path.read_text() for path in FOLDER.glob("*.json")}
    return sorted(path.name for path in made.keys() | found.keys() if made.get(path) != found.get(path))


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        write()
    elif names := stale():
        sys.exit(f"charts/bobrai/dashboards is out of date ({', '.join(names)}): run 'make docs'")
