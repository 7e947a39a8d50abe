"""What the models of ``schemas`` are made of."""

from typing import Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _integral(value: object) -> object:
    """JSON Schema counts 2.0 as an integer, and so do we."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


integer: Final = BeforeValidator(_integral)


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def optional(description: str) -> Any:
    """Return a field that may be left out but not be null: None stands for absent, as defaults are not validated."""
    return Field(None, description=description, json_schema_extra=_drop_default)


class Strict(BaseModel):
    """A model that refuses members which it does not know."""

    model_config = ConfigDict(extra="forbid")
