"""An operation: one method on one path, with all that the router and the OpenAPI document need to know of it.

In: what ``routes`` declares. Out: what ``endpoint`` runs and ``openapi`` describes; nothing is said twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from bobrai.api import schemas
from bobrai.api.web import Reply, Request
from bobrai.domain.access import Scope

# Kinds of problems that many operations have.
ALWAYS: Final = ("internal",)
STORED: Final = ("unavailable", *ALWAYS)
BODY: Final = ("bad-json", "body-timeout", "crowded", "body-too-large", "wrong-media-type", "invalid")

Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Success:
    """A reply that is not a problem: its meaning, its shape, the headers that come with it.

    An empty content type means no body.
    """

    description: str
    view: type[msgspec.Struct] | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one or several equal paths; the first path is the one to recommend.

    ``scope`` is what a principal must hold; None: the operation is open to everybody, and must tell nobody's affairs.
    ``body_limit`` is in bytes; without it, a body is not read. An optional body may be left out, with its Content-Type.
    ``problems`` are kinds of ``problems.KINDS``. A quiet operation is asked so often by machines that it is logged for
    debugging only. One that tells names and needs no scope is kept from pages that have their own name lead here.
    One that is not public is no part of the OpenAPI document.
    """

    id: str
    method: str
    paths: tuple[str, ...]
    handler: Handler
    scope: Scope | None
    tag: str
    summary: str
    description: str = ""
    query: type[BaseModel] = schemas.NoQuery
    body: type[BaseModel] | None = None
    body_limit: int | None = None
    body_optional: bool = False
    body_example: Any = None
    headers: tuple[str, ...] = ()
    successes: Mapping[int, Success]
    problems: tuple[str, ...] = ()
    quiet: bool = False
    tells_names: bool = False
    public: bool = True
