"""URLs are checked before anything connects, pauses grow, and cancellation is told from an outage."""

import asyncio

import pytest

from bobrai.broker import link
from bobrai.domain.errors import BrokerUnavailable, ConfigurationError


def test_several_nodes_are_separated_by_commas() -> None:
    urls = link.parse_urls("amqp://u:p@one/v, amqps://u:p@two:5999/v?heartbeat=3,")
    assert [(url.scheme, url.host, url.port, url.path, url.query["heartbeat"]) for url in urls] == [
        ("amqp", "one", None, "/v", "15"),
        ("amqps", "two", 5999, "/v", "3"),
    ]


@pytest.mark.parametrize(
    "text", ["", " , ", "localhost", "http://host", "amqp://", "amqp://host:notaport/", "amqp://ok,x"]
)
def test_what_is_no_url_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        link.parse_urls(text.replace("://", "://user:secret-word@"))
    assert "secret-word" not in str(refusal.value)


async def test_pauses_double_up_to_two_seconds_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(link.asyncio, "sleep", note)
    backoff = link.Backoff()
    for _ in range(8):
        await backoff.pause()
    backoff.reset()
    await backoff.pause()
    for pause, ceiling in zip(pauses, [0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2, 0.2], strict=True):
        assert ceiling / 2 <= pause <= ceiling


async def test_a_cancelled_future_of_the_library_is_an_outage() -> None:
    with pytest.raises(BrokerUnavailable), link.broker_errors("asking"):
        raise asyncio.CancelledError


async def test_a_wish_to_stop_stays_one_even_when_an_answer_swallowed_it() -> None:
    reached = asyncio.Event()

    async def ask(*, swallow: bool) -> None:
        with link.broker_errors("asking"):
            reached.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallow:
                    raise

    for swallow in (False, True):
        reached.clear()
        task = asyncio.create_task(ask(swallow=swallow))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_deadline_around_and_inside_is_an_outage() -> None:
    async def ask() -> None:
        with link.broker_errors("asking"):
            async with asyncio.timeout(0.001):
                with link.broker_errors("asking deeper"):
                    await asyncio.Event().wait()

    with pytest.raises(BrokerUnavailable, match="no answer in time"):
        await ask()
