"""Who may use the API, and how often: what needs no credential, and how keys are kept up to date."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from bobrai.domain.access import ALL_SCOPES, WORKING_SCOPES, Rate, Scope
from bobrai.settings.declared import DeclaredKeys
from bobrai.settings.group import Group
from bobrai.settings.oidc import Issuers
from bobrai.settings.values import Hosts, MaybeRate, Scopes, Seconds, is_loopback


class AuthSettings(Group):
    """Access to the API."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_AUTH_", frozen=True)

    anonymous_scopes: Scopes | None = Field(
        None,
        description="What a request without a credential may do: scopes, separated by commas, or `none`. Not set: all "
        "of them when the API is served on the loopback, all but `admin` elsewhere, which it warns of.",
    )
    anonymous_hosts: Hosts | None = Field(
        None,
        description="Names under which requests without a credential are served, as their Host header says, separated"
        " by commas, such as `bobrai.internal,*.example.org`; `*`: any. Not set: when the API is served on the"
        " loopback, and no proxy is trusted, `localhost` and the loopback's addresses; any elsewhere.",
    )
    rate: MaybeRate = Field(
        None,
        description="Requests of a principal whose key says none, such as `100/s` or `30/m`, over all processes;"
        " `none`: without bound.",
    )
    anonymous_rate: MaybeRate = Field(
        None, description="Requests of one address without a credential, in each process; `none`: without bound."
    )
    refused_rate: MaybeRate = Field(
        Rate(20, 1),
        description="Credentials of one address that prove nothing, in each process, before they are answered with 429;"
        " `none`: without bound.",
    )
    oidc: Issuers = Field(
        (),
        description="Identity providers whose tokens are taken beside keys: a JSON array, described in docs/oidc.md.",
    )
    keys: DeclaredKeys = Field(
        (),
        description="Keys that the API makes and keeps: a JSON array of objects with name, file (which holds the key"
        " and is read again), scopes, and what else a key may have.",
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
