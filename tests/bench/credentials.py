"""What clients of a measured API show: nothing, an API key, or an RS256 token of an identity provider.

In: the product's database. Out: each credential, and whom its tasks must be from. The key is made by `bobrai keys`, the
token by a provider whose keys the API fetches over HTTP. Next: `measure_access.py`.
"""

import json
import time
from dataclasses import dataclass

from tests.bench.servers import Servers
from tests.support.identity_provider import AUDIENCE, IdentityProvider

OPEN, KEY, TOKEN = "open", "key", "token"
SCOPES = "tasks:submit"
_NAME = "keycloak"
_SUBJECT = "6f1c8a52-0c5e-4c8b-9d0e-2f6b7a3d9e41"
_LIFETIME_SECONDS = 3600
# About as much as a large provider writes into a token, which is read anew with every request.
_CLAIMS = {
    "sub": _SUBJECT,
    "azp": "shop-backend",
    "sid": "0f4b7c1e-8f0a-4b7e-a1a3-0b7f6f4f1c55",
    "preferred_username": "shop-backend",
    "email": "shop-backend@example.org",
    "scope": "openid email profile keycloak",
    "realm_access": {"roles": ["default-roles-shop", "offline_access", "uma_authorization", "shop-backend"]},
    "resource_access": {"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}},
}


@dataclass(frozen=True)
class Credential:
    """A bearer token, and the principal that the API takes it for; both empty for a request without."""

    token: str
    principal: str


class Issuer:
    """An identity provider, and the settings of an API that believes it."""

    def __init__(self, servers: Servers) -> None:
        self._provider = IdentityProvider(servers.processes, servers.run.free_port(), algorithms=("RS256",))
        self.settings = {"BOBRAI_AUTH_OIDC": _settings(self._provider.url)}

    def token(self) -> Credential:
        """A token that outlasts the measurement."""
        claims = {**_CLAIMS, "exp": int(time.time()) + _LIFETIME_SECONDS}
        return Credential(self._provider.token(claims=claims), f"oidc:{_NAME}:{_SUBJECT}")

    def close(self) -> None:
        """End it."""
        self._provider.process.kill()


async def make_key(servers: Servers, environment: dict[str, str]) -> Credential:
    """An API key of the product's database."""
    arguments = ("create", "--name", _NAME, "--scopes", SCOPES)
    command = servers.processes.start("keys", *arguments, environment=environment)
    if await command.exited() != 0:
        raise RuntimeError(f"no key was made:\n{command.log_tail()}")
    secret = command.log_text().split()[-1]
    return Credential(secret, f"key:{secret.split('_')[1]}")


def _settings(url: str) -> str:
    return json.dumps(
        [{"name": _NAME, "issuer": url, "audiences": [AUDIENCE], "roles": [{"value": _NAME, "scopes": [SCOPES]}]}]
    )
