"""Who may use the API: what a request without credentials may do, and how keys are kept up to date."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from bobrai.domain.access import ALL_SCOPES, WORKING_SCOPES, Scope
from bobrai.settings.group import Group
from bobrai.settings.values import Scopes, Seconds, is_loopback


class AuthSettings(Group):
    """Access to the API."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_AUTH_", frozen=True)

    anonymous_scopes: Scopes | None = Field(
        None,
        description="What a request without a credential may do: scopes, separated by commas, or `none`. Not set: all "
        "of them when the API is served on the loopback, all but `admin` elsewhere, which it warns of.",
    )
    refresh_seconds: Annotated[Seconds, Field(le=10)] = Field(
        5.0, description="Period in which keys are read again, should a NOTIFY be lost."
    )
    stale_seconds: Seconds = Field(
        300.0,
        description="How long a key that is known goes on to be believed while the database is away, and nobody would "
        "hear of its revocation.",
    )

    def anonymous(self, bind: str) -> frozenset[Scope]:
        """Return what a request without a credential may do to an API that listens there."""
        if self.anonymous_scopes is not None:
            return self.anonymous_scopes
        return ALL_SCOPES if is_loopback(bind) else WORKING_SCOPES
