"""Judging rendered objects by their schemas, strictly: a field that the API server does not know is a fault.

In: an object and a Kubernetes version. Out: the faults, each with its place. Kubernetes' own kinds come from the wheel
`kubernetes-validate`; custom resources from `schemas/*.yaml`, which hold the fields that the chart may use, in the
short notation that `compile_notation` explains, each naming the definition and the version it was read from.
"""

import functools
import importlib.resources
import json
import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from tests.charts.helm import Manifest

Schema = dict[str, Any]

CUSTOM = Path(__file__).with_name("schemas")
SCALARS = {"string", "integer", "number", "boolean", "object"}


def faults(manifest: Manifest, kubernetes: str) -> list[str]:
    """Return what the API server of this Kubernetes version ("1.30") would refuse."""
    validator = _validator(manifest.api_version, manifest.kind, kubernetes)
    if validator is None:
        return [f"no schema is known for {manifest.api_version} {manifest.kind}"]
    return [
        f"{manifest} {'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator.iter_errors(manifest.body)
    ]


@functools.cache
def _validator(api_version: str, kind: str, kubernetes: str) -> jsonschema_rs.Draft202012Validator | None:
    custom = custom_schemas().get((api_version, kind))
    if custom is not None:
        return jsonschema_rs.Draft202012Validator(custom)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = _folder(kubernetes) / f"{kind.lower()}-{group}.json"
    if not file.is_file():
        return None
    text = file.read_text().replace("/api/_definitions.json#", "#")
    return jsonschema_rs.Draft202012Validator({**json.loads(text), "$defs": _definitions(kubernetes)})


@functools.cache
def _definitions(kubernetes: str) -> Schema:
    text = (_folder(kubernetes) / "_definitions.json").read_text().replace("/api/_definitions.json#", "#")
    found: Schema = json.loads(text)["$defs"]
    return found


def _folder(kubernetes: str) -> Traversable:
    schemas = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    return schemas / f"v{kubernetes}.0-local-strict"


@functools.cache
def custom_schemas() -> dict[tuple[str, str], Schema]:
    """Return the schemas of the custom resources by apiVersion and kind."""
    found = {}
    for file in sorted(CUSTOM.glob("*.yaml")):
        held = yaml.safe_load(file.read_text())
        body = {
            "apiVersion!": held["apiVersion"],
            "kind!": held["kind"],
            "metadata!": {
                "name!": "string",
                "namespace": "string",
                "labels": {"*": "string"},
                "annotations": {"*": "string"},
            },
            "spec!": held["spec"],
        }
        found[held["apiVersion"], held["kind"]] = compile_notation(body)
    return found


def compile_notation(short: Any) -> Schema:
    """Return the JSON schema of the short notation.

    `name!` is required; `{"*": X}` is a map of X; `[X]` a list of X; `string`, `integer`, `number`, `boolean` and
    `object` (anything in it) are types; `integer|string` is either; other words by `|` are the only ones allowed.
    """
    if isinstance(short, list):
        return {"type": "array", "items": compile_notation(short[0])}
    if isinstance(short, dict):
        if set(short) == {"*"}:
            return {"type": "object", "additionalProperties": compile_notation(short["*"])}
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [name[:-1] for name in short if name.endswith("!")],
            "properties": {name.rstrip("!"): compile_notation(inner) for name, inner in short.items()},
        }
    words = str(short).split("|")
    if set(words) <= SCALARS:
        return {"type": words}
    return {"type": "string", "enum": words}
