"""What clients may send as limits of a queue or a type, with every bound as a schema keyword.

Out: models for ``schemas``, and from these the checked values of ``domain.limiting``.
"""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from bobrai.api.fields import Strict, integer, optional
from bobrai.domain import limits
from bobrai.domain.limiting import Limits, PerKey

RateText = Annotated[str, Field(strict=True, pattern=r"^(?:[1-9][0-9]{0,5}|1000000)/[smhd]$")]
Burst = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_RATE), integer]
Concurrency = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_CONCURRENCY), integer]
KeyPointer = Annotated[str, Field(strict=True, max_length=limits.MAX_KEY_POINTER, pattern=limits.KEY_PATTERN)]
_Weight = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_WEIGHT), integer]


def _of_values(weights: dict[str, int]) -> dict[str, int]:
    # Checked here, because pydantic has no place in words for a member's name.
    if any(len(key) > limits.MAX_KEY_VALUE or "\x00" in key for key in weights):
        raise PydanticCustomError(
            "weights", "must have names of up to {most} characters without NUL", {"most": limits.MAX_KEY_VALUE}
        )
    return weights


_WEIGHTS_SCHEMA: Final[dict[str, Any]] = {
    "propertyNames": {"maxLength": limits.MAX_KEY_VALUE, "pattern": r"^[^\x00]*$"}
}
Weights = Annotated[
    dict[str, _Weight],
    Field(max_length=limits.MAX_WEIGHTS, json_schema_extra=_WEIGHTS_SCHEMA),
    AfterValidator(_of_values),
]


class _BoundsWish(Strict):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"dependentRequired": {"burst": ["rate"]}})

    concurrency: Concurrency = optional("Tasks that run at once; without bound when absent.")
    rate: RateText = optional(
        "Tasks that start in a time, retries included, such as `10/s`; without bound when absent."
    )
    burst: Burst = optional("Tasks that start at once after a pause; as many as the rate has when absent.")

    @field_validator("burst")
    @classmethod
    def _of_rate(cls, burst: int, others: ValidationInfo) -> int:
        if others.data.get("rate", "wrong itself") is None:
            raise PydanticCustomError("burst", "needs a rate beside it, such as 10/s")
        return burst


class PerKeyWish(_BoundsWish):
    """Bounds for the tasks of each value of a payload key, which take turns with those of the others."""

    key: KeyPointer = Field(description="JSON Pointer into the payload; tasks without it share one value.")
    weights: Weights = Field({}, description='Turns that a value gets where others get one, such as `{"acme": 3}`.')


class LimitsWish(_BoundsWish):
    """Bounds for all tasks of a queue or a type together, and for those of each value of a payload key."""

    per_key: PerKeyWish = optional("Without it tasks wait in one line.")

    def value(self) -> Limits:
        """Return the limits that it says."""
        per_key = None if self.per_key is None else PerKey(**dict(self.per_key))
        return Limits(**{**dict(self), "per_key": per_key})
