"""Loads ``sql/*.sql``: every statement has a name and a reason, and is loaded once at import.

``queries.CLAIM`` is the text of ``-- name: claim``; a test prepares each of them against the migrated schema.
"""

import re
from collections.abc import Iterator
from importlib.resources import files

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def _statements() -> Iterator[tuple[str, str]]:
    for file in sorted(files("bobrai.store").joinpath("sql").iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".sql"):
            continue
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        yield from zip(parts[::2], parts[1::2], strict=True)


def load() -> dict[str, str]:
    """Return every statement by name, without its comments.

    Raises ValueError when two statements have the same name.
    """
    found: dict[str, str] = {}
    for name, text in _statements():
        if name in found:
            raise ValueError(f"two statements are named {name}")
        lines = (line.split(" -- ")[0].rstrip() for line in text.splitlines() if not line.lstrip().startswith("--"))
        found[name] = f"/* {name} */ " + "\n".join(filter(None, lines)).rstrip(";")
    return found


_loaded = load()


def statement(name: str) -> str:
    """Return the text of a named statement; it starts with its name, for pg_stat_statements and the logs.

    Raises KeyError for a name that no file has.
    """
    return _loaded[name]
