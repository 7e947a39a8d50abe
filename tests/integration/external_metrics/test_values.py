"""Values: due and running tasks per queue as a dispatcher measured them, and "unknown" when they are not known."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from bobrai.settings import Settings
from bobrai.store import migrate, queues
from bobrai.store.pool import Database
from tests.integration.external_metrics.certificates import Authority, Pair
from tests.integration.external_metrics.conftest import BACKLOG, BASE, serving
from tests.integration.store.builders import claimed, submitted, worker
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer

Measure = Callable[[], Awaitable[None]]


async def values(proxy: httpx.AsyncClient, selector: str | None = None) -> dict[str, str]:
    """Queue and value of each item."""
    answer = await proxy.get(BACKLOG, params={} if selector is None else {"labelSelector": selector})
    assert answer.status_code == 200, answer.text
    return {item["metricLabels"]["queue"]: item["value"] for item in answer.json()["items"]}


def assert_status(answer: httpx.Response, code: int, reason: str, *words: str) -> None:
    """Kubernetes' own form of an error."""
    status = answer.json()
    assert answer.status_code == status["code"] == code, answer.text
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["reason"] == reason
    assert all(word in status["message"] for word in words), status["message"]
    assert answer.headers["content-type"] == "application/json"
    # Kubernetes' client would repeat the request at once, ten times, and hold the autoscaler up.
    assert "retry-after" not in answer.headers


@pytest.fixture
async def filled(store: Database, measure: Measure) -> None:
    """Tasks: 3 in default of which 1 runs and 1 is delayed, 2 in media, none in mail; all measured."""
    await queues.ensure(store, ["mail"])
    first, *_ = await submitted(store, 2)
    await submitted(store, delay_seconds=3600.0)
    await submitted(store, 2, queue="media")
    await claimed(store, await worker(store), first)
    await measure()


async def test_a_value_is_what_is_due_and_what_runs(proxy: httpx.AsyncClient, filled: None) -> None:
    before = datetime.now(UTC)
    answer = await proxy.get(f"{BACKLOG}?labelSelector=queue%3Ddefault", headers={"Accept": "application/json"})
    body: dict[str, Any] = answer.json()
    (item,) = body.pop("items")
    assert body == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
    }
    measured = datetime.strptime(item.pop("timestamp"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(0) <= before - measured < timedelta(seconds=20)
    assert item == {"metricName": "bobrai_backlog", "metricLabels": {"queue": "default"}, "value": "2"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, {"default": "2", "mail": "0", "media": "2"}),
        ("", {"default": "2", "mail": "0", "media": "2"}),
        ("queue=media", {"media": "2"}),
        ("queue in (default, media)", {"default": "2", "media": "2"}),
        ("queue in (media,never-used)", {"media": "2"}),
        ("queue notin (default)", {"mail": "0", "media": "2"}),
        ("queue!=default,queue", {"mail": "0", "media": "2"}),
        ("!team,queue=mail", {"mail": "0"}),
    ],
)
async def test_selectors_choose_queues(
    proxy: httpx.AsyncClient, filled: None, selector: str | None, expected: dict[str, str]
) -> None:
    assert await values(proxy, selector) == expected


async def test_a_selector_as_the_autoscaler_writes_it_is_understood(proxy: httpx.AsyncClient, filled: None) -> None:
    """Go writes a space as a plus."""
    answer = await proxy.get(
        f"{BACKLOG}?labelSelector=queue+in+%28default%2Cmedia%29",
        headers={"Accept": "application/vnd.kubernetes.protobuf, */*", "Accept-Encoding": "gzip"},
    )
    assert [item["value"] for item in answer.json()["items"]] == ["2", "2"]


@pytest.mark.parametrize("selector", ["queue=mispelt", "queue in (a,b)", "team=x", "!queue"])
async def test_no_matching_queue_is_unknown_and_not_zero(proxy: httpx.AsyncClient, filled: None, selector: str) -> None:
    """An empty list would do for the autoscaler, but others would add it up to nothing; and this names the reason."""
    answer = await proxy.get(BACKLOG, params={"labelSelector": selector})
    assert_status(answer, 404, "NotFound", selector)


@pytest.mark.parametrize("selector", ["queue=a=b", "queue in", "queue in (a", "=x", ",", "queue=a,,", "queue~x", "a b"])
async def test_a_malformed_selector_is_a_bad_request(proxy: httpx.AsyncClient, filled: None, selector: str) -> None:
    answer = await proxy.get(BACKLOG, params={"labelSelector": selector})
    assert_status(answer, 400, "BadRequest", "label selector")


@pytest.mark.parametrize("path", [f"{BASE}/namespaces/shop/queue_depth", f"{BASE}/namespaces/other/bobrai_backlog"])
async def test_other_metrics_and_namespaces_have_no_values(proxy: httpx.AsyncClient, filled: None, path: str) -> None:
    assert_status(await proxy.get(path), 404, "NotFound", "could not find the metric")


async def test_a_queue_that_was_never_measured_is_unknown(proxy: httpx.AsyncClient, store: Database) -> None:
    assert_status(await proxy.get(BACKLOG), 503, "ServiceUnavailable", "'default'", "not been measured")


async def test_stale_figures_are_unknown_until_somebody_measures_again(
    proxy: httpx.AsyncClient, store: Database, measure: Measure, filled: None
) -> None:
    await store.fetch("UPDATE queues SET measured_at = now() - interval '31 s' WHERE name = 'media'")
    for selector in ("queue=media", "queue in (media,default)", ""):
        answer = await proxy.get(BACKLOG, params={"labelSelector": selector})
        assert_status(answer, 503, "ServiceUnavailable", "'media'", "31 s ago")
    assert await values(proxy, "queue=default") == {"default": "2"}
    await measure()
    assert await values(proxy, "queue=media") == {"media": "2"}


async def test_a_database_that_is_away_is_unknown_and_discovery_goes_on(
    private_postgres: PostgresServer,
    settings_with: Callable[..., Settings],
    server_authority: Authority,
    proxy_pair: Pair,
) -> None:
    """Kubernetes must not lose the whole group of this API with our database: it breaks every client's discovery."""
    await migrate.migrate(private_postgres.url())
    async with serving(settings_with(url=private_postgres.url()), server_authority) as service:
        proxy = await service.client(proxy_pair)
        direct = Database(service.settings.database, pool_size=1)
        await direct.open()
        await direct.fetch("UPDATE queues SET measured_at = now() + interval '1 h'")
        await direct.close()
        assert await values(proxy) == {"default": "0"}
        private_postgres.stop()
        assert_status(await proxy.get(BACKLOG), 503, "ServiceUnavailable", "database")
        assert (await proxy.get(BASE)).status_code == 200
        assert await service.is_ready()
        private_postgres.start()
        private_postgres.freeze()
        assert_status(await proxy.get(BACKLOG), 503, "ServiceUnavailable", "database")
        private_postgres.thaw()
        assert await eventually(lambda: values(proxy)) == {"default": "0"}


async def test_a_watch_is_refused(proxy: httpx.AsyncClient, filled: None) -> None:
    assert_status(await proxy.get(BACKLOG, params={"watch": "true"}), 405, "MethodNotAllowed")
