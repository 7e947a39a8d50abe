"""Runbooks can be followed: what they say to ask, run and send is understood by what it is asked of.

In: docs/runbooks/*.md, for the release `bobrai` in the namespace `bobrai`. Objects, labels, containers and values are
those of the rendered chart; queries, statements and requests go to real programs.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import RUNBOOKS, known, metrics_of, names, run_promtool
from tests.charts.helm import Manifest, render
from tests.support.databases import Database
from tests.support.processes import Processes
from tests.support.run_folder import RunFolder

SECTIONS = ["What it means", "How to confirm", "What to do", "How to prevent it"]
KINDS = {
    "deployment": "Deployment", "statefulset": "StatefulSet", "service": "Service", "cronjob": "CronJob",
    "secret": "Secret",
}  # fmt: skip
NAMED = re.compile(rf"({'|'.join(KINDS)})/([a-z0-9-]+)")


def blocks(name: str, language: str) -> list[str]:
    """The lines of a runbook's code in a language, without comments."""
    text = (RUNBOOKS / f"{name}.md").read_text()
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return [line for block in found for line in block.splitlines() if not line.startswith("#")]


def commands(name: str, *first: str) -> Iterator[list[str]]:
    """The words of each command of a runbook that begins so, without what is piped from it."""
    for line in blocks(name, "sh"):
        words = shlex.split(line)
        if words[: len(first)] == list(first):
            yield words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize("name", names())
def test_a_runbook_has_its_sections_in_order_and_commands(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS
    assert "```sh\n" in text.partition("## What to do")[2]


@pytest.mark.parametrize("name", names())
def test_queries_are_promql_over_metrics_that_exist(run_folder: RunFolder, tmp_path: Path, name: str) -> None:
    queries = blocks(name, "promql")
    assert queries
    assert set().union(*map(metrics_of, queries)) - known() == set()
    made = [{"record": f"check:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": made}]}))
    run_promtool(run_folder, "check", "rules", str(file))


@pytest.mark.parametrize("name", names())
def test_commands_name_objects_of_the_chart_and_containers_of_theirs(name: str) -> None:
    rendered = render()
    for words in commands(name, "kubectl"):
        own = words[: words.index("--")] if "--" in words else words
        about = [rendered.one(KINDS[kind], found) for kind, found in NAMED.findall(" ".join(own))]
        if "-l" in own:
            key, _, value = own[own.index("-l") + 1].partition("=")
            about = [each for each in rendered if (_labels(each)).get(key) == value]
            assert about, f"nothing has that label: {own}"
        if "-c" in own and about:
            container = own[own.index("-c") + 1]
            assert any(container in {each["name"] for each in owner.containers} for owner in about), own


def _labels(each: Manifest) -> dict[str, str]:
    return each.labels | (each.pod_metadata.get("labels") or {} if each.pod else {})


@pytest.mark.parametrize("name", names())
def test_an_upgrade_sets_values_that_the_chart_has(name: str) -> None:
    for words in commands(name, "helm", "upgrade"):
        values: dict[str, Any] = {}
        for flag, word in itertools.pairwise(words):
            if flag == "--set":
                path, _, value = word.partition("=")
                *above, last = path.split(".")
                inner = values
                for key in above:
                    inner = inner.setdefault(key, {})
                inner[last] = value[1:-1].split(",") if value.startswith("{") else yaml.safe_load(value)
        render(values)  # the schema refuses what it does not know


@pytest.mark.parametrize("name", names())
async def test_statements_run_on_the_products_tables(database: Database, name: str) -> None:
    for words in commands(name, "kubectl"):
        if "psql" in words:
            assert words[words.index("psql") :][1:6] == ["-U", "postgres", "-d", "bobrai", "-c"]
            await database.fetch(words[-1])


def test_requests_are_ones_that_the_api_serves(database: Database, processes: Processes) -> None:
    api = processes.start("api", environment={"BOBRAI_DATABASE_URL": database.url})
    paths = json.loads(api.get("/api/openapi.json")[1])["paths"]
    asked = 0
    for words in (words for name in names() for words in commands(name, "curl")):
        (url,) = [word for word in words if word.startswith("localhost:8001")]
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        path = url.removeprefix("localhost:8001").partition("?")[0]
        assert any(
            re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path) and method.lower() in operations
            for template, operations in paths.items()
        ), words
        asked += 1
    assert asked
