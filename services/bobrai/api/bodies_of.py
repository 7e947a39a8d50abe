"""A small body as the model that its operation wants, or every fault at once. Tasks have ``decoding``."""

from typing import TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from bobrai.api import decoding, problems
from bobrai.api.faults import faults_of
from bobrai.api.problems import Fault

WishT = TypeVar("WishT", bound=BaseModel)


def wish(body: bytes, model: type[WishT]) -> WishT:
    """Return what a body wishes; raises a 400 or 422 problem."""
    try:
        given = msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        raise problems.invalid([Fault("", "has a number that is out of range")]) from error
    except RecursionError as error:
        raise problems.bad_json(f"The body is not JSON: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        decoding.refuse_syntax(error, body)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise problems.invalid(faults_of(error)) from error
