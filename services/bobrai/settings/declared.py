"""Keys that whoever installs the service declares: their secrets lie in files, what they may do stands in one variable.

In: a JSON array. Out: checked declarations, for the API to make. A Helm chart or GitOps keeps such keys.
"""

import json
from typing import Annotated

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import NoDecode

from bobrai.settings.grants import GrantSettings


class DeclaredKey(GrantSettings):
    """One key: its name, the file that holds ``bobrai_<id>_<secret>``, and what it may do."""

    name: str
    file: str


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
