"""What pyproject.toml asks for: the base, and what each extra adds.

In: an extra. Out: requirements, with other extras of ours resolved. Next: the lock files, and environments of our own.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def wanted(extra: str = "") -> list[Requirement]:
    """The base, and what the extra adds."""
    base = [Requirement(each) for each in PROJECT["dependencies"]]
    return [*base, *_added_by(extra)] if extra else base


def _added_by(extra: str) -> list[Requirement]:
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found += [each for other in requirement.extras for each in _added_by(other)]
        else:
            found.append(requirement)
    return found


def sorted_texts(requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """As pip takes them, each once."""
    return tuple(sorted({str(each) for each in requirements}))


def least(requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """The oldest release of each that is allowed."""
    bounds = ((each.name, bound) for each in requirements for bound in each.specifier if bound.operator == ">=")
    return tuple(sorted(f"{name}=={bound.version}" for name, bound in bounds))
