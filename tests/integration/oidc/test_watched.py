"""An API says how old the keys of its issuers are, and beyond which age that matters."""

import math
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.access.conftest import closed_api
from tests.integration.api.conftest import Api
from tests.integration.oidc.conftest import settings_of
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.identity_provider import KEYS, IdentityProvider

USABLE = "bobrai_oidc_usable_keys"
AGE, LIMIT = "bobrai_oidc_keys_age_seconds", "bobrai_oidc_keys_age_limit_seconds"


async def figures(api: Api, name: str, issuer: str) -> dict[str, float]:
    """The samples of a metric about an issuer, by their label `limit`."""
    families = text_string_to_metric_families((await api.get("/metrics")).text)
    samples = [each for family in families for each in family.samples if each.name == name]
    return {each.labels.get("limit", ""): each.value for each in samples if each.labels["issuer"] == issuer}


async def test_keys_that_were_read_have_an_age_and_the_limits_of_the_settings(
    database: Database, free_port: Callable[[], int], provider: IdentityProvider
) -> None:
    issuer = settings_of(provider, name="read", refresh_seconds=120, keep_keys_seconds=1800)
    async with closed_api(database.url, free_port(), oidc=(issuer,)) as api:

        async def is_read() -> bool:
            return (await figures(api, AGE, "read"))[""] < math.inf

        await eventually(is_read)
        assert (await figures(api, AGE, "read"))[""] < 120
        assert await figures(api, USABLE, "read") == {"": 3}
        assert await figures(api, LIMIT, "read") == {"refresh": 120, "keep": 1800}


async def test_keys_that_were_never_read_are_infinitely_old(
    database: Database, free_port: Callable[[], int], provider: IdentityProvider
) -> None:
    provider.behave(KEYS, status=500)
    async with closed_api(database.url, free_port(), oidc=(settings_of(provider, name="unread"),)) as api:

        async def is_tried_again() -> bool:
            return provider.fetches() > 1

        await eventually(is_tried_again)
        assert await figures(api, USABLE, "unread") == {"": 0}
        assert await figures(api, AGE, "unread") == {"": math.inf}
