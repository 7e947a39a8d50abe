"""The definitions file says what bobrAI declares, and what an operator may change."""

import json
import re

from bobrai.broker.definitions import definitions


def test_it_is_json_and_names_every_queue_once() -> None:
    made = json.loads(json.dumps(definitions(["media", "default", "media", "_dead-letters"])))
    assert [queue["name"] for queue in made["queues"]] == ["bobrai.default", "bobrai.media", "bobrai._dead-letters"]
    assert all(queue["arguments"] == {"x-queue-type": "quorum"} and queue["durable"] for queue in made["queues"])


def test_dead_letters_never_circle() -> None:
    work, dead = definitions(["media"])["policies"]
    assert re.search(work["pattern"], "bobrai.media")
    assert not re.search(work["pattern"], "bobrai-media")
    assert re.search(dead["pattern"], "bobrai._dead-letters")
    assert not re.search(dead["pattern"], "bobrai._dead-letters-2")
    assert dead["priority"] > work["priority"]
    assert "dead-letter-exchange" not in dead["definition"]


def test_limits_and_places_can_be_chosen() -> None:
    made = definitions(["a"], vhost="v", prefix="x.y-", max_length=7, delivery_limit=3, consumer_timeout_seconds=60)
    work = made["policies"][0]
    assert made["vhosts"] == [{"name": "v"}]
    assert {entry["vhost"] for entry in made["queues"] + made["policies"]} == {"v"}
    assert re.search(work["pattern"], "x.y-a")
    assert not re.search(work["pattern"], "xzy-a")
    limits = work["definition"]
    assert (limits["max-length"], limits["delivery-limit"], limits["consumer-timeout"]) == (7, 3, 60_000)
    assert limits["dead-letter-routing-key"] == "x.y-_dead-letters"
