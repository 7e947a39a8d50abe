"""What settings grant a principal and how much it may take, in the words of an API key.

In: members of a JSON object. Out: checked values. Next: ``declared.py`` (keys), ``oidc.py`` (roles).
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from bobrai.domain.access import Allowance, Grant


class GrantSettings(BaseModel):
    """What a principal may do, and how much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: tuple[str, ...]
    queues: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    own_tasks: bool = False
    rate: str | None = None
    burst: int | None = None
    max_waiting: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.grant()
        self.allowance()
        return self

    def grant(self) -> Grant:
        """Return what a principal holds."""
        return Grant.of(self.scopes, queues=self.queues, types=self.types, own_tasks=self.own_tasks)

    def allowance(self) -> Allowance:
        """Return how much a principal may take."""
        return Allowance.of(rate=self.rate, burst=self.burst, max_waiting=self.max_waiting)
