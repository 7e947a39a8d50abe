"""Queues, types, keys and the audit by the client."""

import pytest

from bobrai.client import Client, errors
from bobrai.testing.service import Service
from tests.support.eventually import eventually_sync


def test_queues_are_made_changed_and_removed(client: Client) -> None:
    made = client.put_queue("mail", max_backlog=10, limits={"concurrency": 2})
    assert (made.name, made.paused, made.max_backlog) == ("mail", False, 10)
    assert made.limits is not None
    assert (made.limits.concurrency, made.limits.rate) == (2, None)
    assert client.pause_queue("mail").paused
    assert not client.resume_queue("mail").paused
    assert client.limit_queue("mail", None).limits is None
    limited = client.limit_queue("mail", {"rate": "5/s", "per_key": {"key": "/account", "concurrency": 1}}).limits
    assert limited is not None
    assert limited.per_key is not None
    assert (limited.rate, limited.per_key.key) == ("5/s", "/account")
    assert "mail" in [queue.name for queue in client.queues()]
    assert client.queue("mail").max_backlog == 10
    with pytest.raises(errors.QueueNotFound):
        client.queue("a?c")
    with pytest.raises(errors.Invalid):
        client.limit_queue("mail", {"concurrency": 0})


def test_a_queue_in_use_is_removed_with_a_purge(client: Client) -> None:
    client.put_queue("old")
    waiting = client.submit("echo", 1, queue="old", delay=600)
    with pytest.raises(errors.QueueInUse):
        client.remove_queue("old")

    def gone() -> bool:
        try:
            client.remove_queue("old", purge=True)
        except errors.QueueInUse:
            return False
        return True

    eventually_sync(gone)
    assert waiting.status() == "cancelled"
    with pytest.raises(errors.QueueNotFound):
        client.queue("old")


def test_types_are_listed_and_limited(client: Client) -> None:
    assert {"demo", "echo", "greet"} <= {type_.name for type_ in client.types()}
    letter = client.type("letter")
    assert (letter.queue, letter.retry.max_attempts) == ("mail", 3)
    assert letter.payload_schema["properties"]["to"]["type"] == "string"
    limited = client.limit_type("letter", {"concurrency": 5})
    assert limited.limits is not None
    assert (limited.limits.concurrency, limited.limits_set) == (5, True)
    assert client.limit_type("letter", None).limits is None
    with pytest.raises(errors.TypeNotFound):
        client.type("nobody")


def test_living_workers_are_listed(client: Client) -> None:
    (worker,) = client.workers()
    assert {"default", "mail"} <= set(worker.queues)
    assert (worker.running, worker.concurrency > 0) == (0, True)
    assert {"demo", "echo", "greet"} <= set(worker.types or ())
    assert worker.host


def test_keys_are_made_rotated_and_revoked_and_everything_is_in_the_audit(running: Service) -> None:
    client = running.client
    made = client.create_key("ci", ["tasks:submit", "tasks:read"], queues=["mail*"], rate="100/s")
    assert made.key.startswith(f"bobrai_{made.id}_")
    assert made.key not in repr(made)
    assert made.queues == ["mail*"]
    assert [key.name for key in client.keys()] == ["ci"]  # noqa: SIM118 - it is no dictionary
    rotated = client.rotate_key(made.id, grace_seconds=0)
    assert rotated.key != made.key
    assert client.key(made.id).rotated_at is not None
    with pytest.raises(errors.KeyRefused):
        client.create_key("ci", ["admin"])
    with pytest.raises(errors.Invalid):
        client.create_key("wrong", ["tasks:everything"])

    with Client(running.url, rotated.key) as narrowed:
        with pytest.raises(errors.Forbidden) as forbidden:
            narrowed.keys()
        assert forbidden.value.scope == "admin"
        with pytest.raises(errors.OutsideGrant):
            narrowed.submit("echo", 1)
        assert narrowed.submit("echo", 1, queue="mail", delay=600).status() == "pending"
    with Client(running.url, made.key) as old, pytest.raises(errors.Unauthorized) as refused:
        old.submit("echo", 1)
    assert refused.value.reason
    client.revoke_key(made.id)
    actions = [change.action for change in client.audit()]
    assert actions == ["key.revoke", "key.rotate", "key.create"]
    assert [change.action for change in client.audit(target=f"key:{made.id}", page_size=1)] == actions


async def test_coroutines_have_the_same_methods(running: Service) -> None:
    sync = {name for name in dir(Client) if not name.startswith("_")}
    async with running.async_client() as client:
        assert {name for name in dir(client) if not name.startswith("_")} == sync
        assert (await client.put_queue("post", paused=True)).paused
        assert [queue.name for queue in await client.queues() if queue.paused] == ["post"]
        assert "echo" in [type_.name for type_ in await client.types()]
        assert len(await client.workers()) == 1
        made = await client.create_key("ci", ["admin"])
        assert [key.id for key in await client.keys()] == [made.id]
        await client.revoke_key(made.id)
        assert [change.action async for change in client.audit(action="key.revoke")] == ["key.revoke"]
        await client.remove_queue("post")
