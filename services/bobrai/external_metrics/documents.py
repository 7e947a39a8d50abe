"""What the server says of itself: discovery in both forms, OpenAPI 2 and 3, and the version.

In: nothing. Out: documents that never change while the process runs, each encoded once, with an ETag. The API server
reads them every minute, merges them into its own, and calls the service unavailable when it cannot.
"""

import hashlib
from typing import Any, Final, NamedTuple

import msgspec

from bobrai import __version__

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
METRIC: Final = "bobrai_backlog"
GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
LIST_KIND: Final = "ExternalMetricValueList"

_SCHEMA_PREFIX: Final = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1."


class Document(NamedTuple):
    """An encoded answer; ``media_type`` names the form where one path has several."""

    body: bytes
    etag: str
    media_type: str


def _document(content: Any, media_type: str = "application/json") -> Document:
    body = msgspec.json.encode(content)
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', media_type)


def _group() -> dict[str, Any]:
    version = {"groupVersion": GROUP_VERSION, "version": VERSION}
    return {"name": GROUP, "versions": [version], "preferredVersion": version}


def groups() -> Document:
    """/apis: the one group."""
    return _document({"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]})


def group() -> Document:
    """/apis/GROUP."""
    return _document({"kind": "APIGroup", "apiVersion": "v1", **_group()})


def resources() -> Document:
    """/apis/GROUP/VERSION: the one metric, by which the API server also tests whether this service is there."""
    return _document(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": GROUP_VERSION,
            "resources": [
                {"name": METRIC, "singularName": "", "namespaced": True, "kind": LIST_KIND, "verbs": ["get"]}
            ],
        }
    )


def aggregated(version: str) -> Document:
    """/apis in the form that has groups, versions and resources in one document; ``version`` is v2 or v2beta1."""
    resource = {
        "resource": METRIC,
        "responseKind": {"group": GROUP, "version": VERSION, "kind": LIST_KIND},
        "scope": "Namespaced",
        "singularResource": "",
        "verbs": ["get"],
    }
    versions = [{"version": VERSION, "resources": [resource], "freshness": "Current"}]
    return _document(
        {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": [{"metadata": {"name": GROUP, "creationTimestamp": None}, "versions": versions}],
        },
        f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
    )


def version() -> Document:
    """/version, in Kubernetes' words."""
    major, minor, *_ = [*__version__.split("."), "0"]
    facts = {"major": major, "minor": minor, "gitVersion": f"v{__version__}"}
    empty = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
    return _document({**facts, **dict.fromkeys(empty, "")})


def openapi_v2() -> Document:
    """/openapi/v2, complete in itself: nothing in it can clash with what the API server merges it into."""
    references = "#/definitions/"
    answer = {"description": "OK", "schema": {"$ref": f"{references}{_SCHEMA_PREFIX}{LIST_KIND}"}}
    parameters = [
        {"name": name, "in": place, "description": text, "required": place == "path", "type": "string"}
        for name, place, text in _PARAMETERS
    ]
    operation = {"produces": ["application/json"], "responses": {"200": answer, "401": {"description": "Unauthorized"}}}
    return _document(
        {
            "swagger": "2.0",
            "info": {"title": "bobrAI external metrics", "version": __version__},
            "paths": {_PATH: {"get": {**_OPERATION, **operation, "parameters": parameters}}},
            "definitions": _schemas(references),
        }
    )


def openapi_v3_index() -> Document:
    """/openapi/v3: where each group version's document is."""
    hashed = openapi_v3().etag.strip('"').upper()
    path = f"apis/{GROUP_VERSION}"
    return _document({"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashed}"}}})


def openapi_v3() -> Document:
    """/openapi/v3/apis/GROUP/VERSION."""
    references = "#/components/schemas/"
    schema = {"$ref": f"{references}{_SCHEMA_PREFIX}{LIST_KIND}"}
    answer = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    parameters = [
        {"name": name, "in": place, "description": text, "required": place == "path", "schema": {"type": "string"}}
        for name, place, text in _PARAMETERS
    ]
    operation = {"responses": {"200": answer, "401": {"description": "Unauthorized"}}}
    return _document(
        {
            "openapi": "3.0.0",
            "info": {"title": "bobrAI external metrics", "version": __version__},
            "paths": {_PATH: {"get": {**_OPERATION, **operation, "parameters": parameters}}},
            "components": {"schemas": _schemas(references)},
        }
    )


_PATH: Final = f"/apis/{GROUP_VERSION}/namespaces/{{namespace}}/{METRIC}"
_PARAMETERS: Final = (
    ("namespace", "path", "The namespace of the autoscaler."),
    ("labelSelector", "query", "Which queues, by their label `queue`. Nothing: all of them."),
)
_OPERATION: Final = {
    "operationId": "listExternalMetricsV1beta1NamespacedBobraiBacklog",
    "description": "The tasks that are due or running, per queue.",
    "tags": ["externalMetrics_v1beta1"],
    "x-kubernetes-action": "list",
    "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": LIST_KIND},
}


def _schemas(references: str) -> dict[str, Any]:
    text = {"type": "string"}
    value = {
        "type": "object",
        "description": "The backlog of one queue.",
        "required": ["metricName", "metricLabels", "timestamp", "value"],
        "properties": {
            "metricName": text,
            "metricLabels": {"type": "object", "additionalProperties": text},
            "timestamp": {"type": "string", "format": "date-time"},
            "window": {"type": "integer", "format": "int64"},
            "value": {**text, "description": "A Kubernetes quantity."},
        },
    }
    values = {
        "type": "object",
        "description": "The backlogs of the selected queues.",
        "required": ["items"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": f"{references}{_SCHEMA_PREFIX}ExternalMetricValue"}},
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": LIST_KIND}],
    }
    return {f"{_SCHEMA_PREFIX}ExternalMetricValue": value, f"{_SCHEMA_PREFIX}{LIST_KIND}": values}
