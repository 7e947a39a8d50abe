"""Declared keys: what a chart or GitOps says is what there is, and a revocation stays one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bobrai.access import issuing
from bobrai.access.declaring import Declarations
from bobrai.access.secrets import new_secret
from bobrai.domain.access import Grant
from bobrai.domain.errors import ConfigurationError
from bobrai.settings import load
from bobrai.store import keys as rows
from bobrai.store.pool import Database
from tests.integration.access.conftest import Keys, closed_api, refused, status
from tests.integration.api.conftest import Api
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually


async def made(store: Database, text: str) -> Declarations:
    """Make what a setting declares."""
    declarations = Declarations(store, load(auth={"keys": text}).auth.keys, refresh_seconds=1.0)
    await declarations.run_once()
    return declarations


class Declared:
    """A declaration in a folder."""

    def __init__(self, store: Database, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def say(self, name: str, secret: str, **more: Any) -> None:
        """Declare one key, as a process does that starts."""
        file = self._folder / name
        file.write_text(f"{secret}\n")
        text = json.dumps([{"name": name, "file": str(file), "scopes": ["queues:read"], **more}])
        await made(self._store, text)


@pytest.fixture
def declared(store: Database, tmp_path: Path) -> Declared:
    return Declared(store, tmp_path)


async def test_a_declared_key_works_and_saying_it_again_changes_nothing(
    api: Api, store: Database, declared: Declared
) -> None:
    secret = new_secret("admin")
    for _ in range(3):
        await declared.say("admin", secret, rate="100/s")
    (row,) = await rows.every(store)
    assert (row["id"], row["created_by"], row["rotated_at"]) == ("admin", "declared", None)
    assert await status(api, secret) == 200


async def test_another_grant_counts_from_then_on(api: Api, declared: Declared) -> None:
    secret = new_secret("a1")
    await declared.say("some", secret, scopes=["tasks:read"])
    assert await status(api, secret) == 403
    await declared.say("some", secret, scopes=["queues:read"])

    async def is_allowed() -> bool:
        return await status(api, secret) == 200

    await eventually(is_allowed)


async def test_another_secret_in_the_file_is_a_rotation_with_a_grace(api: Api, declared: Declared) -> None:
    first, second = new_secret("a1"), new_secret("a1")
    await declared.say("some", first)
    await declared.say("some", second)
    assert [await status(api, first), await status(api, second)] == [200, 200]


async def test_a_file_that_changes_while_the_api_runs_counts_without_a_restart(
    database: OwnDatabase, store: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    file = tmp_path / "admin"
    first, second = new_secret("a1"), new_secret("a1")
    file.write_text(first)
    text = json.dumps([{"name": "chart admin", "file": str(file), "scopes": ["admin"]}])
    async with closed_api(database.url, free_port(), keys=text, refresh_seconds=0.2) as api:
        assert await status(api, first) == 200  # as soon as it is ready
        file.write_text(second)

        async def counts() -> bool:
            return await status(api, second) == 200

        await eventually(counts)
        assert await status(api, first) == 200
        assert await rows.revoke(store, "a1", by=SOMEBODY)
        await eventually(lambda: refused(api, second))


async def test_a_key_with_another_id_replaces_the_one_before_which_goes_on_for_a_grace(
    api: Api, store: Database, declared: Declared
) -> None:
    first, second = new_secret("a1"), new_secret("b2")
    await declared.say("some", first)
    await declared.say("some", second)
    assert [await status(api, each) for each in (first, second)] == [200, 200]
    # its file comes back, as with a rollback
    await declared.say("some", first)
    assert [await status(api, each) for each in (first, second)] == [200, 200]
    shown = {row["id"]: (row["superseded"], row["expires_at"] is None) for row in await rows.every(store)}
    assert shown == {"a1": (False, True), "b2": (True, False)}


async def test_what_people_rotate_or_revoke_stays_so_when_the_same_file_is_read_again(
    api: Api, store: Database, declared: Declared
) -> None:
    first = new_secret("a1")
    await declared.say("some", first)
    rotated = await issuing.rotate(store, "a1", grace_seconds=0, by=SOMEBODY)
    assert rotated is not None
    await declared.say("some", first)
    # the one that the process cannot know makes it read the keys again
    assert [await status(api, each) for each in (rotated.secret, first)] == [200, 401]
    assert await rows.revoke(store, "a1", by=SOMEBODY)
    await declared.say("some", first)
    await eventually(lambda: refused(api, rotated.secret))
    assert await status(api, first) == 401


async def test_one_bad_file_keeps_no_other_key_from_being_made(api: Api, store: Database, tmp_path: Path) -> None:
    secret = new_secret("b2")
    (tmp_path / "good").write_text(secret)
    text = json.dumps(
        [{"name": name, "file": str(tmp_path / name), "scopes": ["queues:read"]} for name in ("bad", "good")]
    )
    with pytest.raises(ConfigurationError, match=r"bad: .*cannot be read"):
        await made(store, text)
    assert await status(api, secret) == 200


async def test_a_declaration_that_cannot_be_made_keeps_no_process_from_serving(
    database: OwnDatabase, store: Database, keys: Keys, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    other, secret = await keys.make(), new_secret("b2")
    (tmp_path / "bad").write_text("hunter2")
    (tmp_path / "good").write_text(secret)
    text = json.dumps(
        [{"name": name, "file": str(tmp_path / name), "scopes": ["queues:read"]} for name in ("bad", "good")]
    )
    async with closed_api(database.url, free_port(), keys=text, refresh_seconds=0.2) as api:  # once it is ready
        assert [await status(api, each) for each in (secret, other.secret)] == [200, 200]
        mended = new_secret("b3")
        (tmp_path / "bad").write_text(mended)

        async def is_made() -> bool:
            return await status(api, mended) == 200

        await eventually(is_made)


async def test_one_key_is_not_declared_under_two_names(store: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(new_secret("a1"))
    text = json.dumps(
        [
            {"name": name, "file": str(tmp_path / "file"), "scopes": [scope]}
            for name, scope in (("narrow", "tasks:read"), ("wide", "admin"))
        ]
    )
    with pytest.raises(ConfigurationError, match="'wide' and 'narrow' have keys of one id, a1"):
        await made(store, text)
    assert [(row["name"], row["scopes"]) for row in await rows.every(store)] == [("narrow", ["tasks:read"])]


async def test_an_id_that_somebody_elses_key_has_is_refused(store: Database, declared: Declared) -> None:
    other = await issuing.create(store, "theirs", Grant.of(["tasks:read"]), by=SOMEBODY)
    with pytest.raises(ConfigurationError, match=f"id is taken by the key {other.key_id}"):
        await declared.say("mine", new_secret(other.key_id), scopes=["admin"])
    assert [(row["name"], row["scopes"]) for row in await rows.every(store)] == [("theirs", ["tasks:read"])]


async def test_a_revoked_key_is_not_brought_back_but_by_another_secret(
    api: Api, store: Database, declared: Declared
) -> None:
    first, second = new_secret("a1"), new_secret("a1")
    await declared.say("some", first)
    assert await rows.revoke(store, "a1", by=SOMEBODY)
    await declared.say("some", first, scopes=["queues:read", "tasks:read"])
    await eventually(lambda: refused(api, first))
    await declared.say("some", second)
    assert await status(api, second) == 200
    assert await status(api, first) == 401


async def test_a_name_that_somebody_else_has_is_refused(store: Database, declared: Declared) -> None:
    made = await issuing.create(store, "ci", Grant.of(["tasks:read"]), by=SOMEBODY)
    with pytest.raises(ConfigurationError, match=f"taken by the key {made.key_id}"):
        await declared.say("ci", new_secret("a1"))
    assert [row["id"] for row in await rows.every(store)] == [made.key_id]


@pytest.mark.parametrize("secret", ["", "letmein", "bobrai_A_" + "x" * 43, "bobrai_a_short"])
async def test_a_file_that_holds_no_key_is_refused_without_being_quoted(declared: Declared, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="must hold bobrai_<id>_<secret>") as refused:
        await declared.say("ci", secret)
    assert not secret or secret not in str(refused.value)


async def test_a_file_that_is_not_there_is_named(store: Database) -> None:
    text = json.dumps([{"name": "ci", "file": "/nowhere", "scopes": ["tasks:read"]}])
    with pytest.raises(ConfigurationError, match="ci: /nowhere cannot be read: No such file"):
        await made(store, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "must be a JSON array"),
        ('{"name": "a"}', "must be a JSON array"),
        ('[{"name": "a", "file": "f"}]', "key 1: scopes: Field required"),
        ('[{"name": "a", "file": "f", "scopes": ["x"]}]', "key 1: 'x' is not a scope"),
        ('[{"name": "a", "file": "f", "scopes": ["admin"], "queues": ["q"]}]', "cannot be narrowed"),
        ('[{"name": "a", "file": "f", "scopes": ["admin"], "more": 1}]', "more: Extra inputs"),
        ('[{"name": "a", "file": "f", "scopes": ["admin"]}, {"name": "a", "file": "f", "scopes": ["admin"]}]', "two"),
    ],
)
def test_a_wrong_declaration_says_what_to_change(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        load(auth={"keys": text})
    assert "BOBRAI_AUTH_KEYS" in str(refused.value)


async def test_what_a_declaration_makes_changes_and_ends_is_known_later(store: Database, declared: Declared) -> None:
    secret = new_secret("a1")
    for rate in ("5/m", "5/m", "9/m"):
        await declared.say("ci", secret, rate=rate)
    await declared.say("ci", new_secret("a1"), rate="9/m")
    await declared.say("ci", new_secret("a2"), rate="9/m")
    entries = await store.fetch("SELECT * FROM audit ORDER BY id")
    assert {(entry["actor"], entry["actor_name"]) for entry in entries} == {("declared", "BOBRAI_AUTH_KEYS")}
    assert [(entry["action"], entry["target"]) for entry in entries] == [
        ("key.create", "key:a1"),
        ("key.change", "key:a1"),
        ("key.change", "key:a1"),
        ("key.change", "key:a1"),
        ("key.create", "key:a2"),
    ]
    rates = [tuple(json.loads(entry[side] or "{}").get("rate") for side in ("before", "after")) for entry in entries]
    assert rates == [(None, "5/m"), ("5/m", "9/m"), ("9/m", "9/m"), ("9/m", "9/m"), (None, "9/m")]
    rotated = json.loads(entries[2]["before"])["rotated_at"], json.loads(entries[2]["after"])["rotated_at"]
    assert rotated[0] is None
    assert rotated[1] is not None
