"""What README.md says to type for a cluster: the images that are built, brought there and asked for are the same."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.helm_binary import REPOSITORY, find

OWN = re.compile(r"(?:.*/)?bobrai-(?:api|worker):[^/]+")


def blocks() -> list[list[list[str]]]:
    """The blocks of README.md that build images: of each its commands, as a shell reads them."""
    found = re.findall(r"```console\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    joined = [re.sub(r"\\\n\s*", "", block) for block in found if "make images" in block]
    return [
        [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines() if line.startswith("$ ")]
        for block in joined
    ]


def commands(block: list[list[str]], *beginning: str) -> list[list[str]]:
    """The arguments of every command that begins so; there is one at least."""
    found = [command[len(beginning) :] for command in block if tuple(command[: len(beginning)]) == beginning]
    assert found, beginning
    return found


def without(arguments: list[str], *flags: str, alone: str = "") -> list[str]:
    """Arguments without these flags and their values, and without one that has no value."""
    rest = iter(arguments)
    return [each for each in rest if each != alone and (each not in flags or next(rest) is None)]


def built(block: list[list[str]]) -> set[str]:
    """The tags that `make images` gives, but for those that name no registry and so reach no cluster."""
    (arguments,) = commands(block, "make", "images")
    recipe = subprocess.run(
        ["make", "--dry-run", "images", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return {tag for tag in re.findall(r" -t (\S+)", recipe.stdout) if "/" in tag}


def brought(block: list[list[str]]) -> set[str]:
    """What is loaded into the nodes of kind, or pushed."""
    if any(command[:2] == ["docker", "push"] for command in block):
        return {image for arguments in commands(block, "docker", "push") for image in arguments}
    (arguments,) = commands(block, "kind", "load", "docker-image")
    return set(without(arguments, "--name"))


def asked(block: list[list[str]]) -> set[str]:
    """Which of our images the release's objects name."""
    (arguments,) = commands(block, "helm", "install")
    arguments = without(arguments, "--timeout", alone="--wait")
    rendered = subprocess.run(
        [str(find(3)), "template", *arguments, "--kube-version", "1.34"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return {image for body in yaml.safe_load_all(rendered.stdout) for image in images(body) if OWN.fullmatch(image)}


def images(held: Any) -> Iterator[str]:
    if isinstance(held, dict):
        if isinstance(held.get("image"), str):
            yield held["image"]
        held = list(held.values())
    for inner in held if isinstance(held, list) else []:
        yield from images(inner)


@pytest.mark.parametrize("block", blocks(), ids=["kind", "registry"])
def test_the_images_that_are_built_are_brought_to_the_cluster_and_are_those_that_it_asks_for(
    block: list[list[str]],
) -> None:
    assert built(block) == brought(block) == asked(block)
    assert len(asked(block)) == 2


def test_the_cluster_that_gets_the_images_is_the_one_that_was_made() -> None:
    kind, _ = blocks()
    (made,), (loaded,) = commands(kind, "kind", "create", "cluster"), commands(kind, "kind", "load", "docker-image")
    assert made[made.index("--name") + 1] == loaded[loaded.index("--name") + 1]
