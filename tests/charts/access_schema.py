"""What values.schema.json says of `auth`: made from the service's own settings, so that Helm refuses what they refuse.

Out: rules for the values' schema. What a schema cannot say in clear words, templates/validate-auth.yaml says.
"""

from typing import Any, Final

from bobrai.domain import limits
from bobrai.domain.access import Scope
from bobrai.settings.grants import GrantSettings
from bobrai.settings.oidc import MAX_ISSUERS, IssuerSettings

Schema = dict[str, Any]

SCOPES: Final[Schema] = {"type": "array", "items": {"type": "string", "enum": [str(scope) for scope in Scope]}}
TEXT: Final[Schema] = {"type": "string", "minLength": 1}

_GRANT: Final[dict[str, Schema]] = {
    "scopes": {**SCOPES, "minItems": 1},
    **{name: {"type": "array", "maxItems": limits.MAX_PATTERNS, "items": TEXT} for name in ("queues", "types")},
    # a number is refused with better words by templates: it is a rate without its unit
    "rate": {"type": ["string", "number", "null"]},
    "burst": {"type": ["integer", "null"], "minimum": 1, "maximum": limits.MAX_RATE},
    "max_waiting": {"type": ["integer", "null"], "minimum": 0},
}
"""What the model of a grant leaves to its validator."""

_IN_VALUES: Final = {"own_tasks": "ownTasks", "max_waiting": "maxWaiting"}


def _plain(rule: Schema, definitions: Schema) -> Schema:
    """Return a rule of pydantic's without references, titles and defaults, and with `null` among its types."""
    if "$ref" in rule:
        return _plain(definitions[rule["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in rule:
        (found,) = (_plain(each, definitions) for each in rule["anyOf"] if each != {"type": "null"})
        return {**found, "type": [found["type"], "null"]}
    kept = {key: value for key, value in rule.items() if key not in {"title", "default", "description", "$defs"}}
    if "items" in rule:
        kept["items"] = _plain(rule["items"], definitions)
    if "properties" in rule:
        kept["properties"] = {name: _plain(each, definitions) for name, each in rule["properties"].items()}
        if "scopes" in rule["properties"]:
            kept["properties"] |= _GRANT
    return kept


def _issuer() -> Schema:
    rule = IssuerSettings.model_json_schema()
    return _plain(rule, rule["$defs"])


def _key() -> Schema:
    grant = _plain(GrantSettings.model_json_schema(), {})["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "secretName", "scopes"],
        "properties": {
            "name": TEXT,
            "secretName": TEXT,
            "secretKey": {"type": "string"},
            **{_IN_VALUES.get(name, name): rule for name, rule in grant.items()},
        },
    }


BY_PATH: Final[dict[str, Schema]] = {
    "auth.anonymous.scopes": SCOPES,
    "auth.keys": {"type": "array", "items": _key()},
    "auth.oidc": {"type": "array", "maxItems": MAX_ISSUERS, "items": _issuer()},
}
"""The rules by the value that they are for."""
