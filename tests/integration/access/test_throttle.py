"""Nobody takes more than a fair share: rates of principals and addresses, requests under way, tasks that wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import httpx

from bobrai.domain.access import Allowance
from bobrai.store.pool import Database
from bobrai.telemetry import metrics
from tests.integration.access.conftest import CLOSED, QUEUES, Keys, bearer, closed_api
from tests.integration.api.conftest import Api, serving
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

TASKS = "/api/v1/tasks"
LIMITED = "urn:bobrai:problem:rate-limited"


async def test_a_key_over_its_rate_gets_429_and_is_told_when_to_come_again(api: Api, keys: Keys) -> None:
    key = await keys.make(allowance=Allowance.of(rate="2/m", burst=3))
    other = await keys.make()
    answers = [await api.get(QUEUES, headers=bearer(key.secret)) for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert [each.headers["ratelimit-policy"] for each in answers] == ['"key";q=3;w=90'] * 5
    left = [each.headers["ratelimit"] for each in answers]
    assert [each.split(";")[1] for each in left] == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    refused = answers[-1]
    assert refused.json()["type"] == LIMITED
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    unbounded = await api.get(QUEUES, headers=bearer(other.secret))
    assert unbounded.status_code == 200
    assert "ratelimit" not in unbounded.headers


async def test_who_waits_as_long_as_it_was_told_is_let_in(api: Api, keys: Keys) -> None:
    headers = bearer((await keys.make(allowance=Allowance.of(rate="1/s"))).secret)
    assert (await api.get(QUEUES, headers=headers)).status_code == 200
    refused = await api.get(QUEUES, headers=headers)
    assert refused.status_code == 429
    until = time.monotonic() + int(refused.headers["retry-after"])
    await eventually(lambda: time.monotonic() >= until)
    assert (await api.get(QUEUES, headers=headers)).status_code == 200


async def test_keys_without_a_rate_have_the_servers(
    database: OwnDatabase, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port(), rate="2/h") as api:
        plain, own = await keys.make(), await keys.make(allowance=Allowance.of(rate="100/s"))
        codes = [(await api.get(QUEUES, headers=bearer(plain.secret))).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert (await api.get(QUEUES, headers=bearer(own.secret))).status_code == 200


async def test_two_replicas_grant_a_key_its_rate_together(
    api: Api, database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port()) as other:

        async def both_count() -> bool:
            return (await store.fetch("SELECT count(*) FROM api_replicas WHERE expires_at > now()"))[0][0] == 2

        await eventually(both_count)
        headers = bearer((await keys.make(allowance=Allowance.of(rate="100/s"))).secret)
        granted = 0
        refused_at = {"api": 0.0, "other": 0.0}
        ended = asyncio.Event()

        async def press(name: str, client: Api) -> None:
            nonlocal granted
            while not ended.is_set():
                # which costs nobody much, so that a busy machine asks often enough
                answer = await client.get(f"{TASKS}/none", headers=headers)
                if answer.status_code == 404:
                    granted += 1
                else:
                    assert answer.status_code == 429
                    refused_at[name] = time.monotonic()

        async def all_is_taken(since: float) -> float:
            await eventually(lambda: min(refused_at.values()) > since, timeout=60)
            return time.monotonic()

        clients = {"api": api, "other": other}
        pressing = [asyncio.create_task(press(*each)) for each in clients.items() for _ in range(2)]
        # Between two moments at which neither had any left, what was granted is the rate, however the machine jerks.
        began = await all_is_taken(time.monotonic() + 1.0)
        before = granted
        seconds = await all_is_taken(began + 5.0) - began
        rate = (granted - before) / seconds
        ended.set()
        await asyncio.gather(*pressing)
        assert 90 <= rate <= 115


async def test_addresses_without_a_credential_share_no_bucket(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    port = free_port()
    auth = {"anonymous_scopes": "queues:read", "anonymous_rate": "2/h"}
    proxies = {"trusted_proxies": "127.0.0.0/8,10.0.0.0/8"}
    async with serving(database.url, port, auth=auth, **proxies), Api(base_url=f"http://127.0.0.1:{port}") as client:

        async def codes(forwarded: str) -> list[int]:
            headers = {"X-Forwarded-For": forwarded}
            return [(await client.get(QUEUES, headers=headers)).status_code for _ in range(3)]

        await eventually(lambda: _serves(client))
        assert await codes("198.51.100.1") == [200, 200, 429]
        # what a client adds itself stands further left, and proxies of ours are not who asks
        assert await codes("1.1.1.1, 198.51.100.1, 10.0.0.7") == [429] * 3
        assert await codes("198.51.100.2") == [200, 200, 429]
        # of IPv6 a customer has a whole network
        assert await codes("2001:db8::1") == [200, 200, 429]
        assert await codes("2001:db8::ffff") == [429] * 3
        assert await codes("2001:db8:0:1::1") == [200, 200, 429]


async def _serves(client: Api) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_nobody_else_is_believed_to_say_where_a_request_is_from(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    port = free_port()
    auth = {"anonymous_scopes": "queues:read", "anonymous_rate": "2/h"}
    async with serving(database.url, port, auth=auth), Api(base_url=f"http://127.0.0.1:{port}") as client:
        await eventually(lambda: _serves(client))
        codes = [
            (await client.get(QUEUES, headers={"X-Forwarded-For": f"198.51.100.{number}"})).status_code
            for number in range(3)
        ]
        assert codes == [200, 200, 429]


async def test_an_address_that_shows_many_bad_credentials_is_slowed_down_and_good_ones_are_not(
    database: OwnDatabase, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port(), refused_rate="3/m") as api:
        throttled = metrics.ACCESS_THROTTLED.labels("refused")._value.get()
        good = await keys.make()
        assert (await api.get(QUEUES, headers=bearer(good.secret))).status_code == 200
        bad = [bearer("letmein"), bearer(good.secret[:-4] + "AAAA"), bearer("bobrai_nobody_x")] * 2
        answers = [await api.get(QUEUES, headers=each) for each in bad]
        assert [each.status_code for each in answers] == [401] * 3 + [429] * 3
        assert answers[-1].headers["ratelimit-policy"] == '"refused";q=3;w=60'
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await api.get(QUEUES, headers=bearer(good.secret))).status_code == 200
        assert metrics.ACCESS_THROTTLED.labels("refused")._value.get() - throttled == 3


async def test_no_more_requests_are_under_way_than_may_and_those_that_wait_for_a_task_do_not_count(
    database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    port = free_port()
    limits = httpx.Limits(max_connections=50)
    async with (
        serving(database.url, port, max_requests=2),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits) as client,
        database.connect() as connection,
    ):
        await eventually(lambda: _serves(client))
        task_id = await client.submit("x")
        waiting: list[asyncio.Task[httpx.Response]] = []

        async def all_wait() -> bool:
            return f"bobrai_task_waiters {len(waiting)}.0" in (await client.get("/metrics")).text

        for _ in range(5):
            waiting.append(asyncio.create_task(client.get(f"{TASKS}/{task_id}", params={"wait": 30})))
            await eventually(all_wait)
        # two requests that the database keeps waiting
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE queues IN ACCESS EXCLUSIVE MODE")
        held: list[asyncio.Task[httpx.Response]] = []

        async def all_are_held() -> bool:
            under_way = len(waiting) + len(held) + 1  # and this look
            return f"bobrai_http_requests_in_progress {under_way}.0" in (await client.get("/metrics")).text

        for _ in range(2):
            held.append(asyncio.create_task(client.get(QUEUES)))
            await eventually(all_are_held)

        async def is_full() -> bool:
            return (await client.get(f"{TASKS}/{task_id}")).status_code == 503

        await eventually(is_full)
        answer = await client.get(f"{TASKS}/{task_id}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:bobrai:problem:overloaded")
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200
        await transaction.rollback()
        assert [each.status_code for each in await asyncio.gather(*held)] == [200, 200]
        assert (await client.post(f"{TASKS}/{task_id}/cancel")).status_code == 200
        assert {each.json()["status"] for each in await asyncio.gather(*waiting)} == {"cancelled"}


async def test_no_more_tasks_of_a_key_wait_than_may(api: Api, keys: Keys, store: Database) -> None:
    bounded = bearer((await keys.make(allowance=Allowance.of(max_waiting=5))).secret)
    other = bearer((await keys.make()).secret)
    task = {"type": "echo", "payload": 1}
    assert (await api.post(f"{TASKS}/batch", json={"tasks": [task] * 6}, headers=bounded)).status_code == 429
    assert (await api.post(f"{TASKS}/batch", json={"tasks": [task] * 4}, headers=bounded)).status_code == 201
    assert (await api.post(TASKS, json=task, headers=bounded)).status_code == 201
    refused = await api.post(TASKS, json=task, headers={**bounded, "Idempotency-Key": "k"})
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:bobrai:problem:too-many-waiting")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await api.post(TASKS, json=task, headers=other)).status_code == 201
    assert (await store.fetch("SELECT count(*) FROM tasks"))[0][0] == 6
    await store.fetch(
        "UPDATE tasks SET status = 'cancelled', finished_at = now() WHERE id = (SELECT min(id) FROM tasks)"
    )

    async def has_room() -> bool:
        return (await api.post(TASKS, json=task, headers=bounded)).status_code == 201

    await eventually(has_room)
    assert (await api.post(TASKS, json=task, headers=bounded)).status_code == 429


async def test_tasks_that_are_run_again_count_as_waiting_too(api: Api, keys: Keys) -> None:
    bounded = bearer((await keys.make(allowance=Allowance.of(max_waiting=1))).secret)
    task = {"type": "echo", "payload": 1}
    first = (await api.post(TASKS, json=task, headers=bounded)).json()["task_id"]
    assert (await api.post(TASKS, json=task, headers=bounded)).status_code == 429
    # what cannot be run again takes no room
    other = bearer((await keys.make(allowance=Allowance.of(max_waiting=1))).secret)
    assert [(await api.post(f"{TASKS}/{first}/replay", headers=other)).status_code for _ in range(3)] == [409] * 3
    assert (await api.post(TASKS, json=task, headers=other)).status_code == 201
    assert (await api.post(f"{TASKS}/{first}/cancel", headers=bounded)).status_code == 200
    second: dict[str, int] = {}

    async def has_room() -> bool:
        answer = await api.post(TASKS, json=task, headers=bounded)
        second.update(answer.json() if answer.status_code == 201 else {})
        return answer.status_code == 201

    await eventually(has_room)
    refused = await api.post(f"{TASKS}/{first}/replay", headers=bounded)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:bobrai:problem:too-many-waiting")
    assert (await api.post(f"{TASKS}/{second['task_id']}/cancel", headers=bounded)).status_code == 200

    async def runs_again() -> bool:
        return (await api.post(f"{TASKS}/{first}/replay", headers=bounded)).status_code == 200

    await eventually(runs_again)
    assert (await api.post(TASKS, json=task, headers=bounded)).status_code == 429


async def test_one_key_takes_its_share_of_a_process_and_no_more(
    database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    port = free_port()
    mine, other = bearer((await keys.make()).secret), bearer((await keys.make()).secret)
    halves = [asyncio.Event() for _ in range(2)]

    async def half_sent(goes_on: asyncio.Event) -> AsyncIterator[bytes]:
        yield b'{"type":"echo",'
        await goes_on.wait()
        yield b'"payload":1}'

    async with (
        serving(database.url, port, auth=CLOSED, max_requests=4, max_requests_per_principal=2),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        await eventually(lambda: _serves(client))
        throttled = metrics.ACCESS_THROTTLED.labels("key")._value.get()
        headers = {**mine, "Content-Type": "application/json"}
        slow = [asyncio.create_task(client.post(TASKS, content=half_sent(each), headers=headers)) for each in halves]

        async def is_refused() -> bool:
            return (await client.get("/api/openapi.json", headers=mine)).status_code == 429

        await eventually(is_refused)
        refused = await client.get(QUEUES, headers=mine)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:bobrai:problem:too-many-at-once")
        assert refused.headers["retry-after"] == "1"
        assert metrics.ACCESS_THROTTLED.labels("key")._value.get() - throttled >= 2
        assert (await client.get(QUEUES, headers=other)).status_code == 200
        for each in halves:
            each.set()
        assert [each.status_code for each in await asyncio.gather(*slow)] == [201, 201]
        assert [(await client.get(QUEUES, headers=mine)).status_code for _ in range(5)] == [200] * 5


async def test_tasks_of_a_new_key_and_the_removal_of_their_queue_do_not_meet(api: Api, keys: Keys) -> None:
    other = bearer((await keys.make()).secret)
    for number in range(40):
        queue = f"/api/v1/queues/q{number}"
        assert (await api.put(queue, headers=other)).status_code == 201
        fresh = [await keys.make(allowance=Allowance.of(max_waiting=5)) for _ in range(3)]
        task = {"type": "echo", "payload": 1, "queue": f"q{number}"}
        answers = await asyncio.gather(
            *(api.post(TASKS, json=task, headers=bearer(each.secret)) for each in fresh),
            api.delete(queue, headers=other),
        )
        assert {each.status_code for each in answers[:-1]} == {201}, answers[0].text
        assert answers[-1].status_code in {204, 409}
