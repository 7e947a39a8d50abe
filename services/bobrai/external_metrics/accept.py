"""What form of an answer a client takes, by its Accept header.

In: the header. Out: whether plain JSON will do, and which version of aggregated discovery is asked for first.
"""

from collections.abc import Iterator
from typing import Final

_JSON: Final = frozenset({"application/json", "application/*", "*/*"})
_DISCOVERY_VERSIONS: Final = frozenset({"v2", "v2beta1"})


def takes_json(header: str) -> bool:
    """Return whether plain JSON is among the forms; an empty header takes anything."""
    return not header.strip() or any(media in _JSON and "as" not in form for media, form in _clauses(header))


def discovery_version(header: str) -> str | None:
    """Return the version of aggregated discovery that is asked for, None for the plain form."""
    for media, form in _clauses(header):
        if media not in _JSON:
            continue
        if "as" not in form:
            return None
        wanted = form.get("g") == "apidiscovery.k8s.io" and form["as"] == "APIGroupDiscoveryList"
        if wanted and form.get("v") in _DISCOVERY_VERSIONS:
            return form["v"]
    return None


def _clauses(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    for clause in filter(None, (part.strip() for part in header.split(","))):
        media, *parameters = (part.strip() for part in clause.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield media.lower(), {name.strip(): value.strip() for name, _, value in pairs}
