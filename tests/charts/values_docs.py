"""What of the chart is made: values.schema.json, which Helm enforces, the README's table, and the service's settings.

In: the keys, defaults and `# -- ` comments of values.yaml, and the settings in the code. Out: `python -m
tests.charts.values_docs` writes the files; with `--check` it only says whether they are up to date. `make docs` and
`make check` call it.

A type follows from the default: a boolean, a number, a string, a list, a map in braces with just its keys, any other
map as free. Where that is not enough, the comment starts with the type in parentheses: `# -- (soft|hard|none) …` for
fixed words, `(integer|null)`, `(list of string)`, `(map of string)`, `(like pod)` for the keys of another value. What
`access_schema.py` knows needs none.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml

from bobrai import settings
from bobrai.domain import limits
from tests.charts import access_schema

CHART = Path(__file__).resolve().parents[2] / "charts" / "bobrai"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
SETTINGS = CHART / "files" / "settings.json"
TABLE_BEGIN = "<!-- values: made from values.yaml by `make docs` -->"
TABLE_END = "<!-- end of values -->"

Schema = dict[str, Any]

TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
ENVIRONMENT_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"

BY_NAME: dict[str, Schema] = {
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "requests": QUANTITIES,
            "limits": QUANTITIES,
            "claims": {"type": "array", "items": {"type": "object"}},
        },
    },
    "config": {
        "type": "object",
        "propertyNames": {"pattern": ENVIRONMENT_NAME},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
    "queues": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"type": "string", "pattern": limits.QUEUE_PATTERN},
    },
    "extraEnv": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": ENVIRONMENT_NAME},
                "value": {"type": "string"},
                "valueFrom": {"type": "object"},
            },
        },
    },
}
"""What Kubernetes, the environment or the service fixes, wherever a value has this name."""


class ValuesError(Exception):
    """values.yaml breaks a rule of this page; the message names the key."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml."""

    path: str
    default: Any
    description: str
    type: str
    closed: bool
    """A map in braces, whose keys are all there are."""
    children: list["Value"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def read(text: str) -> list[Value]:
    """Return the tree of values, every leaf described."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return _children(node, "", text.splitlines())


def _children(node: yaml.MappingNode, prefix: str, lines: list[str]) -> list[Value]:
    return [_value(key, value, f"{prefix}{key.value}", lines) for key, value in node.value]


def _value(key: yaml.ScalarNode, node: yaml.Node, path: str, lines: list[str]) -> Value:
    kind, description = _comment(lines, key.start_mark.line, key.start_mark.column)
    default = yaml.SafeLoader("").construct_document(node)
    is_map = isinstance(node, yaml.MappingNode) and bool(node.value)
    if is_map and not description:
        return Value(path, default, "", "", closed=False, children=_children(node, f"{path}.", lines))
    if not description:
        raise ValuesError(f"{path} has no `# -- ` comment")
    inner = [_inline(f"{path}.{name}", value) for name, value in default.items()] if is_map and node.flow_style else []
    return Value(path, default, description, kind, closed=bool(inner), children=inner)


def _inline(path: str, default: Any) -> Value:
    inner = [_inline(f"{path}.{name}", value) for name, value in default.items()] if isinstance(default, dict) else []
    return Value(path, default, "", "", closed=bool(inner), children=inner)


def _comment(lines: list[str], line: int, column: int) -> tuple[str, str]:
    found: list[str] = []
    for above in reversed(lines[:line]):
        said = re.match(rf" {{{column}}}# (-- )?(.*)$", above)
        if said is None:
            return "", ""
        found.insert(0, said[2])
        if said[1]:
            kind, description = re.match(r"(?:\(([^)]*)\) )?(.*)$", " ".join(found)).groups()  # type: ignore[union-attr]
            return kind or "", description
    return "", ""


def schema(values: list[Value]) -> Schema:
    """Return the JSON schema of the whole file."""
    known = {value.path: value for value in _walk(values)}
    properties = {value.name: _schema(value, known) for value in values}
    properties["global"] = {"type": "object", "description": "What Helm passes to every chart; not read."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the bobrAI chart",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _walk(values: list[Value]) -> Iterator[Value]:
    for value in values:
        yield value
        yield from _walk(value.children)


def _schema(value: Value, known: dict[str, Value]) -> Schema:
    found = _type(value, known)
    return {**found, "description": value.description} if value.description else found


def _type(value: Value, known: dict[str, Value]) -> Schema:
    if value.path in access_schema.BY_PATH:
        return access_schema.BY_PATH[value.path]
    if value.type:
        return _named_type(value.type, value.path, known)
    if value.name in BY_NAME:
        return BY_NAME[value.name]
    if value.children:
        return _closed(value, known)
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            is_port = value.name == "port" or value.name.endswith("Port")
            return {"type": "integer", "minimum": 0, **({"maximum": 65535} if is_port else {})}
        case float():
            return {"type": "number", "minimum": 0}
        case str():
            return {"type": "string"}
        case list():
            items = {type(item) for item in value.default}
            return {"type": "array", **({"items": {"type": "string"}} if items == {str} else {})}
        case dict():
            return {"type": "object"}
    raise ValuesError(f"{value.path}: no type follows from the default {value.default!r}; write one, as (integer|null)")


def _closed(value: Value, known: dict[str, Value]) -> Schema:
    properties = {child.name: _schema(child, known) for child in value.children}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _named_type(text: str, path: str, known: dict[str, Value]) -> Schema:
    if like := re.fullmatch(r"like (\S+)", text):
        if like[1] not in known:
            raise ValuesError(f"{path}: there is no value {like[1]} to be like")
        return _type(known[like[1]], known)
    if of := re.fullmatch(r"(list|map) of (.+)", text):
        inner = _named_type(of[2], path, known)
        return (
            {"type": "array", "items": inner} if of[1] == "list" else {"type": "object", "additionalProperties": inner}
        )
    if limits := re.fullmatch(r"(integer|number)(\|null)? (\d+)\.\.(\d*)", text):
        kind = [limits[1], "null"] if limits[2] else limits[1]
        return {"type": kind, "minimum": int(limits[3]), **({"maximum": int(limits[4])} if limits[4] else {})}
    words = text.split("|")
    if set(words) <= TYPES:
        return {"type": words if len(words) > 1 else words[0]}
    if TYPES & set(words):
        raise ValuesError(f"{path}: {text} mixes types and words")
    return {"type": "string", "enum": words}


def table(values: list[Value]) -> str:
    """Return the README's table: a row for each described value."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in _walk(values):
        if value.description:
            words = f"One of {', '.join(value.type.split('|'))}. " if _is_words(value.type) else ""
            default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
            rows.append(f"| `{value.path}` | `{default}` | {words}{value.description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _is_words(text: str) -> bool:
    return "|" in text and not TYPES & set(text.split("|"))


RULES = ("type", "enum", "pattern", "minimum", "exclusiveMinimum", "maximum")
"""What templates/_settings.tpl looks at of a setting's JSON schema."""


def rules() -> dict[str, Schema]:
    """Return every variable of the service, with what its value may be as far as templates can tell."""
    found: dict[str, Schema] = {name: {} for name in settings.variables()}
    for group in settings.GROUPS.values():
        for name, rule in group.model_json_schema()["properties"].items():
            kept = {key: rule[key] for key in RULES if key in rule}
            found[f"{group.model_config.get('env_prefix', '')}{name}".upper()] = kept
    return found


def made() -> dict[Path, str]:
    """Return the files as they should be."""
    values = read(VALUES.read_text())
    before, _, rest = README.read_text().partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not end:
        raise ValuesError(f"{README} lacks the marks {TABLE_BEGIN} and {TABLE_END}")
    return {
        SCHEMA: json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n",
        SETTINGS: "{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(rule)}" for name, rule in rules().items())
        + "\n}\n",
        README: f"{before}{TABLE_BEGIN}\n{table(values)}\n{TABLE_END}{after}",
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with --check say where they differ."""
    fresh = True
    for path, text in made().items():
        held = path.read_text() if path.exists() else ""
        if held == text:
            continue
        if arguments == ["--check"]:
            fresh = False
            difference = unified_diff(held.splitlines(), text.splitlines(), str(path), "as made", lineterm="")
            print("\n".join(difference))
            print(f"{path.name} is out of date: run 'make docs'")
        else:
            path.write_text(text)
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
