"""Identity providers in processes of their own, and verifiers that ask them over HTTP."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bobrai.access.oidc import OidcVerifier
from bobrai.settings.oidc import IssuerSettings
from tests.support.identity_provider import AUDIENCE, IdentityProvider
from tests.support.processes import Processes

MakeProvider = Callable[..., IdentityProvider]
MakeVerifier = Callable[..., OidcVerifier]


@pytest.fixture
def make_provider(processes: Processes, free_port: Callable[[], int]) -> MakeProvider:
    """Starts a provider of identities, with a key for each of the algorithms."""
    return lambda *algorithms: IdentityProvider(processes, free_port(), *([algorithms] if algorithms else []))


@pytest.fixture
def provider(make_provider: MakeProvider) -> IdentityProvider:
    """One that has a key for each algorithm."""
    return make_provider()


def settings_of(provider: IdentityProvider, **changes: Any) -> IssuerSettings:
    """Settings that trust a provider; every token of it may read tasks."""
    given = {"name": "idp", "issuer": provider.url, "audiences": [AUDIENCE], "default": {"scopes": ["tasks:read"]}}
    return IssuerSettings.model_validate(given | changes)


@pytest.fixture
async def verifier_of() -> AsyncIterator[MakeVerifier]:
    """Makes verifiers: of one provider with changed settings, or of whole settings."""
    made: list[OidcVerifier] = []

    def make(*issuers: IdentityProvider | IssuerSettings, max_cached: int = 100, **changes: Any) -> OidcVerifier:
        settings = [each if isinstance(each, IssuerSettings) else settings_of(each, **changes) for each in issuers]
        made.append(OidcVerifier(settings, max_cached=max_cached))
        return made[-1]

    yield make
    for verifier in made:
        await verifier.close()
