"""Keys that whoever installs the service declares: their secrets lie in files, what they may do stands in one variable.

In: a JSON array. Out: checked declarations, for the API to make. A Helm chart or GitOps keeps such keys.
"""

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_settings import NoDecode

from bobrai.domain.access import Allowance, Grant


class DeclaredKey(BaseModel):
    """One key: its name, the file that holds ``bobrai_<id>_<secret>``, and what it may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str
    scopes: tuple[str, ...]
    queues: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    own_tasks: bool = False
    rate: str | None = None
    burst: int | None = None
    max_waiting: int | None = None

    @model_validator(mode="after")
    def _check(self) -> "DeclaredKey":
        self.grant()
        self.allowance()
        return self

    def grant(self) -> Grant:
        """Return what it may do."""
        return Grant.of(self.scopes, queues=self.queues, types=self.types, own_tasks=self.own_tasks)

    def allowance(self) -> Allowance:
        """Return how much it may take."""
        return Allowance.of(rate=self.rate, burst=self.burst, max_waiting=self.max_waiting)


def _declared(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"must be a JSON array of objects: {error}") from None
    if not isinstance(value, list | tuple):
        raise ValueError("must be a JSON array of objects, one for each key")  # noqa: TRY004 - pydantic's way
    keys = [_key(number, item) for number, item in enumerate(value, 1)]
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two keys have the same name {twice[0]!r}")
    return tuple(keys)


def _key(number: int, item: object) -> DeclaredKey:
    if isinstance(item, DeclaredKey):
        return item
    try:
        return DeclaredKey.model_validate(item)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"key {number}: {where}: {message}" if where else f"key {number}: {message}") from None


DeclaredKeys = Annotated[tuple[DeclaredKey, ...], NoDecode, BeforeValidator(_declared)]
