"""What RabbitMQ and the network may do to the broker room, and that it heals by itself and loses nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from bobrai.broker.definitions import definitions
from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.domain.errors import BrokerUnavailable
from bobrai.telemetry.logs import captured as capture_logs
from tests.contract.broker_contract import Inbox, message
from tests.support.eventually import eventually, stays
from tests.support.rabbitmq import VirtualHost
from tests.support.tcp_proxy import TcpProxy

QUEUE = "media"
Logs = list[MutableMapping[str, Any]]
NewBroker = Callable[..., RabbitBroker]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def new_broker(rabbitmq: VirtualHost) -> AsyncIterator[NewBroker]:
    """Makes brokers that are closed after the test; the watchdog is quick unless told otherwise."""
    made: list[RabbitBroker] = []

    def make(url: str = rabbitmq.url, **options: Any) -> RabbitBroker:
        made.append(RabbitBroker(url, **{"watchdog_seconds": 0.2, **options}))
        return made[-1]

    yield make
    for broker in made:
        await broker.close()


@pytest.fixture
async def broker(new_broker: NewBroker) -> RabbitBroker:
    return await started(new_broker())


@pytest.fixture
def proxy(rabbitmq: VirtualHost, tcp_proxy: Callable[[str, int], TcpProxy]) -> TcpProxy:
    address = aio_pika.connection.URL(rabbitmq.url)
    return tcp_proxy(str(address.host), int(address.port or 5672))


@pytest.fixture
async def raw(rabbitmq: VirtualHost) -> AsyncIterator[AbstractChannel]:
    """A plain channel beside the product's, for what an operator or a stranger might do."""
    connection = await aio_pika.connect(rabbitmq.url)
    yield await connection.channel()
    await connection.close()


async def started(broker: RabbitBroker) -> RabbitBroker:
    await broker.start()
    async with asyncio.timeout(10):
        await broker.wait_connected()
    return broker


def events(logs: Logs, event: str) -> Logs:
    return [entry for entry in logs if entry["event"] == event]


async def published(broker: RabbitBroker, *ids: int) -> bool:
    return all(await broker.publish(QUEUE, [message(number) for number in ids]))


# --- the connection


async def test_a_broker_that_comes_late_is_used_without_help(
    new_broker: NewBroker, rabbitmq: VirtualHost, proxy: TcpProxy, logs: Logs
) -> None:
    proxy.refuse()
    broker, inbox = new_broker(proxy.url(rabbitmq.url)), Inbox(acks=True)
    await broker.start()
    subscription = broker.subscribe(QUEUE, 5, inbox)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(QUEUE, [message(1)])
    await stays(lambda: not broker.connected and not subscription.consuming, 0.8)
    assert len(events(logs, "broker.unreachable")) == 1
    proxy.pass_through()
    await eventually(lambda: subscription.consuming)
    assert await published(broker, 1)
    await inbox.has(1)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda url: url.with_password("secret-word"), "user 'guest' or its password is wrong"),
        (lambda url: url.with_path("/nowhere"), "virtual host 'nowhere' does not exist or user 'guest' may not"),
        (lambda url: url.with_host("no-such-host.invalid"), "host name 'no-such-host.invalid' is unknown"),
        (lambda url: url.with_scheme("amqps"), "TLS"),
        (lambda url: url.with_port(1), "onnect"),
    ],
)
async def test_a_wrong_url_is_explained_once_without_the_password(
    new_broker: NewBroker, rabbitmq: VirtualHost, logs: Logs, change: Callable[[Any], Any], hint: str
) -> None:
    wrong = change(aio_pika.connection.URL(rabbitmq.url))
    broker = new_broker(str(wrong))
    await broker.start()
    await eventually(lambda: events(logs, "broker.unreachable"))
    await stays(lambda: not broker.connected, 0.6)
    [entry] = events(logs, "broker.unreachable")
    assert hint in entry["reason"]
    assert "secret-word" not in str(logs)


async def test_a_node_that_is_down_is_passed_over(new_broker: NewBroker, rabbitmq: VirtualHost) -> None:
    down = str(aio_pika.connection.URL(rabbitmq.url).with_port(1))
    broker = await started(new_broker(f"{down}, {rabbitmq.url}"))
    assert await published(broker, 1)


async def test_what_was_held_when_the_line_broke_comes_back_and_late_acks_are_dropped(
    new_broker: NewBroker, rabbitmq: VirtualHost, proxy: TcpProxy, logs: Logs
) -> None:
    broker, inbox = await started(new_broker(proxy.url(rabbitmq.url))), Inbox()
    subscription = broker.subscribe(QUEUE, 3, inbox)
    assert await published(broker, 1, 2, 3, 4)
    await inbox.has(3)
    proxy.cut()
    await eventually(lambda: len(inbox) == 6, message="all three are delivered again")
    for delivery in inbox.deliveries[:3]:
        delivery.ack()
    await inbox.stays_at(6)
    assert [delivery.redelivered for delivery in inbox.deliveries] == [False] * 3 + [True] * 3
    for delivery in inbox.deliveries[3:]:
        delivery.ack()
    await eventually(lambda: inbox.ids[6:] == [4])
    await eventually(lambda: subscription.consuming)
    assert len(events(logs, "broker.lost")) == 1


async def test_a_line_that_breaks_under_load_loses_nothing(
    new_broker: NewBroker, rabbitmq: VirtualHost, proxy: TcpProxy, logs: Logs
) -> None:
    publisher = await started(new_broker(proxy.url(rabbitmq.url)))
    consumer, inbox = await started(new_broker(proxy.url(rabbitmq.url))), Inbox(acks=True)
    consumer.subscribe(QUEUE, 50, inbox)
    confirmed: set[int] = set()
    enough = asyncio.Event()

    async def publish_until_enough() -> None:
        first = 1
        while not enough.is_set():
            batch = range(first, first + 100)
            try:
                assert await publisher.publish(QUEUE, [message(number) for number in batch]) == [True] * 100
            except BrokerUnavailable:
                await publisher.wait_connected()
            else:
                confirmed.update(batch)
                first += 100

    publishing = asyncio.create_task(publish_until_enough())
    for cuts in range(1, 5):
        sofar = len(confirmed)
        await eventually(lambda sofar=sofar: len(confirmed) >= sofar + 500 and consumer.connected, 20)  # type: ignore[misc]
        proxy.cut()
        await eventually(lambda cuts=cuts: len(events(logs, "broker.lost")) == 2 * cuts)  # type: ignore[misc]
    enough.set()
    async with asyncio.timeout(20):
        await publishing
    await eventually(lambda: set(inbox.ids) >= confirmed, 20, message="all that was confirmed arrives")
    await eventually(lambda: len(events(logs, "broker.connected")) == 10)
    assert len(events(logs, "broker.lost")) == 8


async def test_a_broker_that_closes_all_connections_is_found_again(
    broker: RabbitBroker, rabbitmq: VirtualHost, logs: Logs
) -> None:
    inbox = Inbox(acks=True)
    subscription = broker.subscribe(QUEUE, 5, inbox)
    await eventually(lambda: subscription.consuming)
    await eventually(lambda: asyncio.to_thread(rabbitmq.close_connections))
    await eventually(lambda: events(logs, "broker.lost"))
    await eventually(lambda: subscription.consuming)
    assert await published(broker, 1)
    await inbox.has(1)


async def test_a_line_that_carries_nothing_is_given_up_and_made_anew(
    new_broker: NewBroker, rabbitmq: VirtualHost, proxy: TcpProxy
) -> None:
    broker = await started(new_broker(proxy.url(rabbitmq.url), confirm_timeout=0.5, connect_timeout=0.5))
    inbox = Inbox(acks=True)
    subscription = broker.subscribe(QUEUE, 5, inbox)
    await eventually(lambda: subscription.consuming)
    assert await published(broker, 1)
    await inbox.has(1)
    proxy.blackhole()
    with pytest.raises(BrokerUnavailable):
        await broker.publish(QUEUE, [message(2)])
    await eventually(lambda: not subscription.consuming and not broker.connected, 20)
    proxy.pass_through()
    await eventually(lambda: subscription.consuming, 20)
    assert await published(broker, 3)
    await eventually(lambda: 3 in inbox.ids)


# --- queues


async def test_a_deleted_queue_is_declared_again_by_the_publisher(broker: RabbitBroker, raw: AbstractChannel) -> None:
    assert await published(broker, 1)
    await _delete(raw)
    assert await broker.publish(QUEUE, [message(number) for number in range(1, 51)]) == [True] * 50
    assert await broker.depth(QUEUE) == 50


async def test_a_deleted_queue_is_consumed_again(broker: RabbitBroker, raw: AbstractChannel, logs: Logs) -> None:
    inbox = Inbox(acks=True)
    subscription = broker.subscribe(QUEUE, 5, inbox)
    await eventually(lambda: subscription.consuming)
    await _delete(raw)
    await eventually(lambda: events(logs, "broker.consumer.cancelled"))
    assert await published(broker, 1)
    await inbox.has(1)
    await eventually(lambda: subscription.consuming)


async def _delete(raw: AbstractChannel) -> None:
    underlay = await raw.get_underlay_channel()
    await underlay.queue_delete(f"bobrai.{QUEUE}")


async def test_a_queue_that_an_operator_made_differently_is_reported_and_used(
    broker: RabbitBroker, raw: AbstractChannel, logs: Logs
) -> None:
    assert await broker.publish("other", [message(1)]) == [True]
    await raw.declare_queue(f"bobrai.{QUEUE}", durable=True, arguments={"x-queue-type": "classic"})
    inbox, other = Inbox(acks=True), Inbox()
    broker.subscribe("other", 5, other)
    await other.has(1)
    assert await published(broker, 1)
    broker.subscribe(QUEUE, 5, inbox)
    await inbox.has(1)
    assert await broker.depth(QUEUE) == 0
    [entry] = events(logs, "broker.queue.differs")
    assert entry["queue"] == f"bobrai.{QUEUE}"
    assert "x-queue-type" in entry["reason"]
    assert not events(logs, "broker.lost")
    await other.stays_at(1)


# --- consumers


async def test_the_watchdog_replaces_a_consumer_that_died_silently(broker: RabbitBroker, logs: Logs) -> None:
    inbox = Inbox(acks=True)
    subscription = broker.subscribe(QUEUE, 5, inbox)
    await eventually(lambda: subscription.consuming)
    channel = subscription._channel
    assert channel is not None
    [tag] = channel.active
    # Ended behind the subscription's back: this side still believes in it.
    await channel._underlay.basic_cancel(tag)
    assert await published(broker, 1, 2)
    await inbox.has(2)
    [entry] = events(logs, "broker.consumer.silent")
    assert (entry["queue"], entry["ready"], entry["consumers"]) == (QUEUE, 2, 0)
    await eventually(lambda: subscription.consuming)


async def test_the_watchdog_leaves_a_healthy_consumer_alone(broker: RabbitBroker, logs: Logs) -> None:
    inbox = Inbox()
    subscription = broker.subscribe(QUEUE, 2, inbox)
    assert await published(broker, 1, 2, 3)
    await inbox.has(2)
    await eventually(lambda: subscription.consuming)  # a delivery may overtake the broker's answer to it
    await stays(lambda: subscription.consuming, 1.5)
    inbox.deliveries[0].ack()
    inbox.deliveries[1].ack()
    await inbox.has(3)
    await stays(lambda: subscription.consuming, 1.0)
    assert not events(logs, "broker.consumer.silent")


async def test_a_consumer_that_the_broker_times_out_is_issued_again(
    broker: RabbitBroker, rabbitmq: VirtualHost, logs: Logs
) -> None:
    await broker.depth(QUEUE)
    policy = {"pattern": "^bobrai", "apply-to": "queues", "definition": {"consumer-timeout": 1000}}
    await asyncio.to_thread(rabbitmq.management.call, "PUT", f"/policies/{rabbitmq.name}/timeout", policy)
    inbox = Inbox()
    subscription = broker.subscribe(QUEUE, 2, inbox)
    assert await published(broker, 1)
    await inbox.has(1)
    await eventually(lambda: len(inbox) >= 2, 30, message="the broker takes the message back and delivers it again")
    for delivery in inbox.deliveries:
        delivery.ack()
    await eventually(lambda: subscription.consuming)
    assert await published(broker, 2)
    await eventually(lambda: 2 in inbox.ids, 20)
    assert inbox.deliveries[1].redelivered
    assert not events(logs, "broker.lost")


async def test_consumers_that_pile_up_by_resizing_are_put_together(broker: RabbitBroker) -> None:
    inbox = Inbox()
    subscription = broker.subscribe(QUEUE, 12, inbox)
    assert await published(broker, *range(1, 200))
    await inbox.has(12)
    subscription.resize(11)
    for position in range(40):
        inbox.deliveries[position].ack()
        await eventually(lambda position=position: len(inbox) >= 12 + position)  # type: ignore[misc]
    channel = subscription._channel
    assert channel is not None
    assert len(channel.active) <= 8
    assert channel.capacity == 11
    assert inbox.ids == sorted(set(inbox.ids))


# --- messages


MALFORMED = [b"", b"not json", b'{"v":2,"hints":[[1,0]]}', b'{"v":1,"hints":[]}', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
async def test_what_cannot_be_decoded_is_put_aside_and_the_rest_goes_on(
    broker: RabbitBroker, raw: AbstractChannel, body: bytes
) -> None:
    inbox = Inbox(acks=True)
    await broker.depth(QUEUE)
    stranger = aio_pika.Message(body, headers={"from": "a stranger"}, message_id="m-1")
    await raw.default_exchange.publish(stranger, f"bobrai.{QUEUE}")
    assert await published(broker, 1)
    broker.subscribe(QUEUE, 1, inbox)
    await inbox.has(1)
    assert await broker.depth("_dead-letters") == 1
    put_aside = await (await raw.get_queue("bobrai._dead-letters")).get()
    assert put_aside.body == body
    assert put_aside.message_id == "m-1"
    assert put_aside.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert put_aside.headers["from"] == "a stranger"
    assert put_aside.headers["bobrai-queue"] == QUEUE
    assert put_aside.headers["bobrai-reason"]
    assert put_aside.headers["bobrai-at"]


async def test_what_cannot_be_put_aside_is_not_lost(
    new_broker: NewBroker, raw: AbstractChannel, rabbitmq: VirtualHost, logs: Logs
) -> None:
    inbox = Inbox(acks=True)
    await raw.declare_queue(
        "bobrai._dead-letters", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    broker = await started(new_broker())
    await broker.depth(QUEUE)
    await raw.default_exchange.publish(aio_pika.Message(b"not json"), f"bobrai.{QUEUE}")
    subscription = broker.subscribe(QUEUE, 5, inbox)
    assert await published(broker, 1)
    await inbox.has(1)
    await eventually(lambda: events(logs, "broker.dead_letters.full"))
    await subscription.close()

    async def is_back() -> bool:
        return await broker.depth(QUEUE) == 1

    await eventually(is_back, message="the malformed message is back in its queue")


# --- definitions


async def test_the_definitions_can_be_imported_and_their_policies_apply(
    broker: RabbitBroker, rabbitmq: VirtualHost
) -> None:
    call, vhost = rabbitmq.management.call, rabbitmq.name

    async def policy_of(queue: str) -> tuple[str, dict[str, Any]]:
        found = await asyncio.to_thread(call, "GET", f"/queues/{vhost}/bobrai.{queue}")
        assert found["arguments"] == {"x-queue-type": "quorum"}
        return found["policy"], found["effective_policy_definition"]

    for limit in (1000, 500):
        wished = definitions(["media"], vhost=vhost, max_length=limit)
        await asyncio.to_thread(call, "POST", "/definitions", wished)
        policies = {policy["name"]: policy["definition"] for policy in wished["policies"]}
        for queue, policy in (("media", "bobrai-queues"), ("_dead-letters", "bobrai-dead-letters")):

            async def applies(queue: str = queue, expected: Any = (policy, policies[policy])) -> bool:
                return await policy_of(queue) == expected

            await eventually(applies, message=f"{policy} applies to {queue}")
    assert await published(broker, 1)
    assert await broker.publish("made-later", [message(1)]) == [True]
    await eventually(lambda: policy_of("made-later"))
