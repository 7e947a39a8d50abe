"""JSON text to payloads and results to JSON text, by the types that a handler declares.

In: the payload as the client wrote it, and whatever the handler returned. Out: a validated value, and text that
PostgreSQL accepts as ``json``. What does not fit is a permanent failure: another attempt would meet the same bytes.
"""

import json
from typing import Any, NewType

import msgspec
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, from_json, to_json

from bobrai.domain import limits, nesting
from bobrai.domain.errors import ConfigurationError, PermanentFailure

JsonText = NewType("JsonText", str)
"""Annotates a payload or result that stays JSON text: neither parsed nor checked here."""

_ANYTHING = (Any, JsonText, object)


class InvalidPayload(PermanentFailure):
    """The payload is not what the handler's annotation says."""


class InvalidResult(PermanentFailure):
    """The handler returned what cannot be stored: of the wrong type, not JSON, or too large."""


class PayloadCodec:
    """Decodes payloads of one handler."""

    def __init__(self, wanted: Any) -> None:
        self._as_text = wanted is JsonText
        self._adapter: TypeAdapter[Any] | None = None if wanted in _ANYTHING else TypeAdapter(wanted)

    @property
    def schema(self) -> str:
        """The JSON Schema (2020-12) that payloads must fit, as JSON text."""
        return _schema(self._adapter, "validation")

    def decode(self, text: str) -> Any:
        """Return the payload; raises InvalidPayload naming the places that are wrong, without their values."""
        if self._as_text:
            return text
        try:
            return from_json(text) if self._adapter is None else self._adapter.validate_json(text)
        except ValidationError as error:
            raise InvalidPayload(_faults(error)) from None
        except ValueError as error:
            raise InvalidPayload(f"the payload cannot be read as JSON: {error}") from None


class ResultCodec:
    """Encodes results of one handler."""

    def __init__(self, wanted: Any) -> None:
        self._as_text = wanted is JsonText
        self._adapter: TypeAdapter[Any] | None = None if wanted in _ANYTHING else TypeAdapter(wanted)

    @property
    def schema(self) -> str:
        """The JSON Schema (2020-12) of results, as JSON text."""
        return _schema(self._adapter, "serialization")

    def encode(self, value: Any) -> str:
        """Return the result as JSON text; raises InvalidResult."""
        if self._as_text:
            return str(value)
        try:
            if self._adapter is None:
                data = to_json(value)
            else:
                data = self._adapter.dump_json(self._adapter.validate_python(value))
        except ValidationError as error:
            raise InvalidResult(_faults(error)) from None
        except (PydanticSerializationError, ValueError) as error:
            raise InvalidResult(f"the result cannot be written as JSON: {error}") from None
        if len(data) > limits.MAX_RESULT_BYTES:
            raise InvalidResult(f"the result has {len(data)} bytes of JSON; at most {limits.MAX_RESULT_BYTES} are kept")
        # JSON has no such numbers, and PostgreSQL would refuse them.
        if (b"NaN" in data or b"Infinity" in data) and not _finite(data):
            raise InvalidResult("the result holds NaN or Infinity, which JSON cannot say")
        return data.decode()


def payload_text(value: Any) -> str:
    """Return a payload to submit as JSON text; raises ValueError for one that the API would refuse."""
    if isinstance(value, str) and not 1 <= len(value) <= limits.MAX_PAYLOAD_STRING:
        raise ValueError(
            f"a payload that is a string must have 1 to {limits.MAX_PAYLOAD_STRING} characters, not {len(value)}"
        )
    try:
        data = to_json(value)
        msgspec.json.decode(data)  # it refuses NaN, and numbers that no worker could read
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ValueError(f"the payload cannot be written as JSON: {error}") from None
    if len(data) > limits.MAX_BODY_BYTES:
        raise ValueError(f"the payload has {len(data)} bytes of JSON; at most {limits.MAX_BODY_BYTES} are accepted")
    if nesting.is_deeper(data, limits.MAX_JSON_DEPTH):
        raise ValueError(f"the payload nests deeper than {limits.MAX_JSON_DEPTH} arrays and objects")
    return data.decode()


def _finite(data: bytes) -> bool:
    try:
        from_json(data, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"/{'/'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:10]]
    return "; ".join(shown) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")


def _schema(adapter: TypeAdapter[Any] | None, mode: Any) -> str:
    if adapter is None:
        return "{}"
    try:
        schema = adapter.json_schema(mode=mode)
    except PydanticUserError as error:
        raise ConfigurationError(f"its type has no JSON Schema: {error.message}") from error
    return json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **schema})
