"""The lock files name what pyproject.toml asks for, so that an image cannot lack a new dependency."""

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.support.requirements import wanted

REPOSITORY = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    """Names and versions of a lock file; every one must have hashes."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)((?: ;[^\\\n]*)?) \\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\w", text, re.MULTILINE)), "an entry without version or hash"
    return {name: version for name, version, _ in entries}


@pytest.mark.parametrize("extra", ["api", "worker"])
def test_the_lock_satisfies_the_extra(extra: str) -> None:
    locked = pins(extra)
    for each in wanted(extra):
        version = locked.get(canonicalize_name(each.name))
        assert version, f"{each.name} is not in requirements/{extra}.txt: run `make lock`"
        assert each.specifier.contains(version), f"{each} but {version} is locked: run `make lock`"


def test_both_images_have_the_same_versions() -> None:
    api, worker = pins("api"), pins("worker")
    assert {name: api[name] for name in worker if name in api} == {n: v for n, v in worker.items() if n in api}


def test_what_builds_and_reloads_is_locked_too() -> None:
    assert "setuptools" in pins("build")
    assert "watchfiles" in pins("reload")
