"""The page at /docs: the OpenAPI document for human readers, without scripts and without anything to load.

In: the document. Out: HTML with ``ADDRESS`` wherever the reader's own address belongs. Light and dark by the reader's
system; readable on paper, on a phone and by a screen reader.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import msgspec

ADDRESS: Final = "{{address}}"
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5a646e;--paper:#fff;--panel:#f4f6f8;--line:#d9dee3;--link:#0b5cad;
--get:#0b6e4f;--post:#7a3e00;--patch:#6a1b9a;--delete:#a31621}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaee;--soft:#a3adb7;--paper:#14181c;--panel:#1e242a;--line:#333c45;
--link:#7ab8ff;--get:#5fd3a8;--post:#ffb77a;--patch:#d7a6f0;--delete:#ff9a9a}}
*{box-sizing:border-box}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;overflow-wrap:break-word}
a{color:var(--link)}a.skip{position:absolute;left:-999px}
a.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem}
.page{display:grid;grid-template-columns:minmax(12rem,17rem) minmax(0,1fr);max-width:80rem;margin:auto}
nav{font-size:.9rem}nav.beside{position:sticky;top:0;height:100vh;overflow:auto;padding:1.5rem 1rem;
border-right:1px solid var(--line)}details.above{display:none;margin:0;padding:.75rem 1rem;background:var(--panel)}
summary{cursor:pointer;font-weight:600}details nav{margin-top:.75rem}
nav ul{list-style:none;margin:.25rem 0 1rem;padding:0}nav li{margin:.15rem 0}nav a{text-decoration:none}
nav a:hover,nav a:focus{text-decoration:underline}main{padding:1.5rem 2rem 4rem}
h1{margin:0 0 .25rem}h2{margin:2.5rem 0 .5rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
h3{margin:2rem 0 .25rem;font-size:1.15rem}h4{margin:1rem 0 .25rem;font-size:.95rem}
code,pre{font-family:ui-monospace,monospace;font-size:.88em}
pre{background:var(--panel);padding:.75rem 1rem;overflow:auto;border-radius:6px;border:1px solid var(--line)}
h1,h2,h3,p code,.route{overflow-wrap:anywhere}
.method{display:inline-block;min-width:3.5rem;font-weight:700}
.GET{color:var(--get)}.POST{color:var(--post)}.PATCH,.PUT{color:var(--patch)}.DELETE{color:var(--delete)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem;margin:.25rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}.soft{color:var(--soft)}
@media (max-width:50rem){.page,details.above{display:block}nav.beside{display:none}main{padding:1rem}}
@media print{nav.beside,details.above{display:none}.page{display:block}}
"""
_METHODS: Final = ("get", "post", "patch", "put", "delete")
# What a reader does first comes first; all else follows as it stands in the document.
_FIRST: Final = ("submitTask", "submitTasks", "readTask", "listTasks", "cancelTask", "replayTask")
_EXAMPLES: Final = {
    "task_id": "1",
    "name": "default",
    "type": "demo",
    "key_id": "k7x2m9q4w1ab",
}  # in paths
_TWIN: Final = "AtFirstPath"
_Operation = tuple[str, str, Mapping[str, Any]]


def render(document: Mapping[str, Any]) -> str:
    """Return the page."""
    found = list(_operations(document))
    operations = sorted((each for each in found if not _is_twin(each)), key=_place)
    info = document["info"]
    schemas = document["components"]["schemas"]
    sections = "".join(
        f'<section aria-labelledby="{_anchor(tag)}"><h2 id="{_anchor(tag)}">{escape(tag)}</h2>'
        + "".join(_operation(*operation) for operation in operations if tag in operation[2]["tags"])
        + "</section>"
        for tag in (each["name"] for each in document["tags"])
    )
    shapes = "".join(_shape(name, schema) for name, schema in schemas.items())
    contents = _contents(document, operations)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a><div class="page">'
        f'<nav class="beside" aria-label="Contents">{contents}</nav><details class="above">'
        f'<summary>Contents</summary><nav aria-label="Contents">{contents}</nav></details>'
        f'<main id="content"><h1>{escape(info["title"])} API</h1>'
        f'<p class="soft">Version {escape(info["version"])} · <a href="api/openapi.json">OpenAPI 3.1</a></p>'
        f"{_prose(info['description'])}{_start()}{_twins(filter(_is_twin, found))}{sections}"
        f'<section aria-labelledby="schemas"><h2 id="schemas">Schemas</h2>{shapes}</section></main></div></body></html>'
    )


def _start() -> str:
    return (
        '<h2 id="start">Start</h2>'
        "<p>Submit a task, then read it; <code>wait</code> holds the answer until it is final.</p>"
        f"<pre><code>curl -X POST {ADDRESS}/api/v1/tasks -H 'Content-Type: application/json' \\\n"
        "  -d '{&quot;payload&quot;: &quot;test task&quot;}'\n"
        f"curl '{ADDRESS}/api/v1/tasks/1?wait=20'</code></pre>"
    )


def _twins(operations: Iterable[_Operation]) -> str:
    """Name the other paths of some operations, once."""
    named = [f"<code>{method} {escape(path)}</code>" for path, method, _ in operations]
    words = f"{' and '.join(named)} of the first version do the same as their twins under <code>/api/v1</code>."
    return f'<p class="soft">{words}</p>' if named else ""


def _operations(document: Mapping[str, Any]) -> Iterable[_Operation]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method.upper(), item[method]


def _is_twin(operation: _Operation) -> bool:
    return str(operation[2]["operationId"]).endswith(_TWIN)


def _place(operation: _Operation) -> int:
    name = operation[2]["operationId"]
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _contents(document: Mapping[str, Any], operations: Iterable[_Operation]) -> str:
    listed = list(operations)
    groups = []
    for tag in (each["name"] for each in document["tags"]):
        links = "".join(
            f'<li><a href="#{operation["operationId"]}">{escape(operation["summary"])}</a></li>'
            for _, _, operation in listed
            if tag in operation["tags"]
        )
        groups.append(f"<strong>{escape(tag)}</strong><ul>{links}</ul>")
    names = document["components"]["schemas"]
    shapes = "".join(f'<li><a href="#{_anchor(name)}">{escape(name)}</a></li>' for name in names)
    return f"{''.join(groups)}<strong>Schemas</strong><ul>{shapes}</ul>"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    anchor = operation["operationId"]
    parts = [
        f'<article aria-labelledby="{anchor}"><h3 id="{anchor}">{escape(operation["summary"])}</h3>',
        f'<p class="route"><code><span class="method {method}">{method}</span> {escape(path)}</code></p>',
        _prose(operation.get("description", "")),
        _scopes(operation),
        _parameters(operation["parameters"]),
        _body(operation.get("requestBody")),
        _responses(operation["responses"]),
        f"<h4>Example</h4><pre><code>{escape(_curl(path, method, operation), quote=False)}</code></pre></article>",
    ]
    return "".join(parts)


def _scopes(operation: Mapping[str, Any]) -> str:
    scopes = [scope for each in operation["security"] for held in each.values() for scope in held]
    if not scopes:
        return ""
    needed = "Needs" if _needs_credential(operation) else "Open here; a credential that is shown needs"
    return f'<p class="soft">{needed} the scope {", ".join(f"<code>{escape(scope)}</code>" for scope in scopes)}.</p>'


def _needs_credential(operation: Mapping[str, Any]) -> bool:
    return bool(operation["security"]) and {} not in operation["security"]


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"<code>{escape(each['name'])}</code>",
            escape(each["in"]),
            _kind(each["schema"]),
            _inline(each.get("description", "")),
        )
        for each in parameters
    ]
    return f"<h4>Parameters</h4>{_table(('Name', 'In', 'Type', 'Meaning'), rows)}" if rows else ""


def _body(body: Mapping[str, Any] | None) -> str:
    if body is None:
        return ""
    schema = body["content"]["application/json"]["schema"]
    return (
        f"<h4>Body</h4><p>{_kind(schema)} as <code>application/json</code>. {_inline(body.get('description', ''))}</p>"
    )


def _responses(responses: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for status, response in responses.items():
        kinds = ", ".join(
            f'{_kind(content["schema"])} <span class="soft">{escape(media)}</span>'
            for media, content in response.get("content", {}).items()
        )
        rows.append((f"<code>{status}</code>", _inline(response["description"]), kinds or "no body"))
    return f"<h4>Answers</h4>{_table(('Status', 'Meaning', 'Body'), rows)}"


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>",
            _kind(described),
            "required" if field in required else "",
            _inline(described.get("description", "")),
        )
        for field, described in schema.get("properties", {}).items()
        if isinstance(described, Mapping)
    ]
    table = _table(("Field", "Type", "", "Meaning"), rows) if rows else f"<p>{_kind(schema)}</p>"
    return f'<h3 id="{_anchor(name)}">{escape(name)}</h3>{_prose(schema.get("description", ""))}{table}'


def _kind(schema: Any) -> str:
    """Say in a few words what a schema allows."""
    if not isinstance(schema, Mapping):
        return "anything"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "any JSON value")
    words = escape(" or ".join(kind) if isinstance(kind, list) else str(kind))
    if kind == "array" and "items" in schema:
        words += f" of {_kind(schema['items'])}"
    return words + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    found = []
    for least, most, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ):
        if least in schema or most in schema:
            found.append(f"{schema.get(least, '')} to {schema.get(most, '')}{unit}")
    if schema.get("default") is not None:
        found.append(f"default {schema['default']}")
    return f' <span class="soft">({escape(", ".join(found))})</span>' if found else ""


def _curl(path: str, method: str, operation: Mapping[str, Any]) -> str:
    url = path.format(**_EXAMPLES)
    line = f"curl {ADDRESS}{url}" if method == "GET" else f"curl -X {method} {ADDRESS}{url}"
    if _needs_credential(operation):
        line += ' -H "Authorization: Bearer $BOBRAI_API_KEY"'
    body = operation.get("requestBody")
    if body is not None:
        example = msgspec.json.encode(body["content"]["application/json"]["example"]).decode()
        line += f" -H 'Content-Type: application/json' -d '{example}'"
    return line


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.strip().split("\n\n") if part)


def _inline(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _anchor(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
