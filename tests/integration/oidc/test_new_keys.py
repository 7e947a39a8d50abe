"""New keys under no name of their own, and how long anybody waits for keys."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import copy_context

import pytest

from bobrai.access import refusals
from bobrai.telemetry import logs
from tests.integration.access.conftest import bearer, closed_api
from tests.integration.api.conftest import Api
from tests.integration.oidc.conftest import MakeVerifier, settings_of
from tests.integration.oidc.test_keys import outcome
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.identity_provider import AUDIENCE, KEYS, IdentityProvider

TASKS = "/api/v1/tasks"


async def test_a_new_key_under_an_old_id_works_at_once(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    await verifier.run_once()
    old = provider.token()
    assert await outcome(verifier, old) == "taken"
    provider.make_key("RS256", provider.key_ids["RS256"])
    assert await outcome(verifier, provider.token()) == "taken"
    assert await outcome(verifier, old) == refusals.SIGNATURE
    assert provider.fetches() == 2


async def test_a_new_key_of_a_provider_that_names_none_works_at_once(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    await verifier.run_once()
    assert await outcome(verifier, provider.token(header={"kid": None})) == "taken"
    provider.process.kill()
    provider.start()
    kid = provider.make_key("RS256", "hidden", kid=None)
    assert kid == "hidden"
    assert await outcome(verifier, provider.token(kid="hidden", header={"kid": None})) == "taken"


async def test_forged_signatures_do_not_flood_the_issuer(provider: IdentityProvider, verifier_of: MakeVerifier) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    await verifier.run_once()
    forged = [provider.token("EdDSA", signed="by_another", claims={"sub": f"s{number}"}) for number in range(100)]
    assert set(await asyncio.gather(*(outcome(verifier, token) for token in forged))) == {refusals.SIGNATURE}
    assert {await outcome(verifier, token) for token in forged} == {refusals.SIGNATURE}
    assert provider.fetches() == 2


async def test_a_wrong_signature_is_nobodys_fault_while_the_keys_cannot_be_read(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, unknown_key_pause_seconds=300)
    await verifier.run_once()
    provider.behave(KEYS, status=500)
    forged = provider.token(signed="by_another")
    assert [await outcome(verifier, forged) for _ in range(2)] == ["unavailable", "unavailable"]
    assert await outcome(verifier, provider.token()) == "taken"


async def test_who_comes_while_a_read_hangs_waits_for_a_short_time_only(
    provider: IdentityProvider, verifier_of: MakeVerifier
) -> None:
    verifier = verifier_of(provider, timeout_seconds=8)
    known = provider.token()
    assert await outcome(verifier, known) == "taken"
    provider.behave(KEYS, delay_seconds=7)
    verifier = verifier_of(provider, timeout_seconds=8)
    first = asyncio.ensure_future(outcome(verifier, known))

    async def is_turned_away() -> bool:
        began = time.monotonic()
        assert await outcome(verifier, provider.token(header={"kid": "forged"})) == "unavailable"
        return time.monotonic() - began < 2

    await eventually(lambda: asyncio.to_thread(provider.fetches))
    began = time.monotonic()
    await eventually(lambda: time.monotonic() > began + 1.1)
    assert await is_turned_away()
    assert not first.done()
    first.cancel()


async def test_only_so_many_wait_for_an_issuers_keys_and_others_are_served(
    database: Database, free_port: Callable[[], int], provider: IdentityProvider
) -> None:
    issuer = {"name": "idp", "issuer": provider.url, "audiences": [AUDIENCE], "default": {"scopes": ["tasks:read"]}}
    issuer |= {"timeout_seconds": 8, "unknown_key_pause_seconds": 0.1}
    async with (
        closed_api(database.url, free_port(), oidc=json.dumps([issuer]), refused_rate="20/m") as api,
        AsyncExitStack() as stack,
    ):
        good = bearer(provider.token())
        assert (await api.get(TASKS, headers=good)).status_code == 200
        provider.behave(KEYS, delay_seconds=7)
        forged = [bearer(provider.token("EdDSA", header={"kid": f"forged-{number}"})) for number in range(150)]
        # A client has a hundred connections at most.
        clients = [await stack.enter_async_context(Api(base_url=api.base_url, timeout=30)) for _ in range(2)]
        flood = [
            asyncio.ensure_future(clients[number % 2].get(TASKS, headers=each)) for number, each in enumerate(forged)
        ]

        async def is_crowded() -> bool:
            return 'oidc_unverified_total{cause="crowded",issuer="idp"}' in (await api.get("/metrics")).text

        await eventually(is_crowded)
        metrics = (await api.get("/metrics")).text
        assert 'bobrai_oidc_waiting_requests{issuer="idp"} 100.0' in metrics
        assert (await api.get(TASKS, headers=good)).status_code == 200
        turned_away = Counter(each.result().status_code for each in flood if each.done())
        assert set(turned_away) == {503, 429}
        assert all(int(each.result().headers["retry-after"]) >= 1 for each in flood if each.done())
        # The address has shown too many that prove nothing: it is not let wait at all.
        again = await api.get(TASKS, headers=bearer(provider.token(header={"kid": "another"})))
        assert again.status_code == 429
        for each in flood:
            each.cancel()


async def test_a_read_that_a_token_caused_and_that_failed_is_tried_again_soon(
    database: Database, free_port: Callable[[], int], provider: IdentityProvider
) -> None:
    async with closed_api(database.url, free_port(), oidc=(settings_of(provider),)) as api:
        assert (await api.get(TASKS, headers=bearer(provider.token()))).status_code == 200
        provider.behave(KEYS, status=500)
        before = provider.fetches()
        unknown = bearer(provider.token(header={"kid": "new"}))
        answer = await api.get(TASKS, headers=unknown)
        assert (answer.status_code, int(answer.headers["retry-after"])) == (503, 5)

        async def is_tried_again() -> bool:
            return provider.fetches() >= before + 3

        await eventually(is_tried_again)


async def test_what_a_library_says_of_a_read_is_in_no_requests_log(
    provider: IdentityProvider, verifier_of: MakeVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    carried: list[object] = []

    def note(record: logging.LogRecord) -> bool:
        carried.extend(value for variable, value in copy_context().items() if variable.name == "bobrai_said_in")
        return True

    library = logging.getLogger("httpx")
    logs.carry(lambda: {"request_id": "somebody's"})
    library.addFilter(note)
    try:
        with caplog.at_level(logging.INFO, "httpx"):
            assert await outcome(verifier_of(provider), provider.token()) == "taken"
    finally:
        library.removeFilter(note)
    assert [record for record in caplog.records if record.name == "httpx"]
    assert carried == []
