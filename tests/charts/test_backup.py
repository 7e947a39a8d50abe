"""Backup and restore: the rendered scripts between two real servers, with the product's schema and rows in them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.charts.containers import Pod
from tests.charts.helm import CRD_APIS, Manifest, render
from tests.charts.postgresql import AWKWARD, SECRETS, SERVICE, Server, connected, programs
from tests.support.databases import migrate
from tests.support.eventually import eventually
from tests.support.run_folder import RunFolder

DAY = 86400
TASKS = 3000


@pytest.fixture(scope="module")
def full(run_folder: RunFolder) -> Iterator[Server]:
    """A server that the application migrated and filled."""
    server = Server(run_folder)
    server.prepare()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def dumps(run_folder: RunFolder) -> Path:
    """The backup volume."""
    return run_folder.folder(f"dumps-{run_folder.free_port()}")


def job(run: RunFolder, server: Server, name: str, dumps: Path, **environment: str) -> Pod:
    """The pod of one of the backup's objects, against this server."""
    return Pod(
        run,
        programs(run),
        server.rendered,
        server.rendered.one("CronJob", name),
        secrets=SECRETS,
        replace={SERVICE: "127.0.0.1"},
        environment={"PGPORT": str(server.port), **environment},
        claims={"dumps": dumps},
    )


async def fill(server: Server) -> None:
    """The product's schema and many tasks, written as the application's role."""
    await migrate(f"postgresql://bobrai:{quote(AWKWARD, safe='')}@127.0.0.1:{server.port}/bobrai")
    async with connected(server.address()) as connection:
        await connection.execute(
            "INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds)"
            f" SELECT 'demo', 'default', '\"ü\"'::json, 3, '{{}}', 60 FROM generate_series(1, {TASKS})"
        )


async def counts(server: Server) -> dict[str, int]:
    """Rows of every table, and the next id."""
    async with connected(server.address()) as connection:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = {name: await connection.fetchval(f'SELECT count(*) FROM "{name}"') for (name,) in names}
        found["last id"] = await connection.fetchval("SELECT max(id) FROM tasks")
    return found


async def test_a_dump_restores_into_an_empty_server_with_equal_counts(
    run_folder: RunFolder, full: Server, dumps: Path
) -> None:
    await fill(full)
    done = job(run_folder, full, "bobrai-backup", dumps).run("backup")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tables" in done.stdout
    assert [file.name.startswith("bobrai-20") for file in dumps.iterdir()] == [True]

    empty = Server(run_folder)
    empty.prepare()
    empty.start()
    try:
        restored = job(run_folder, empty, "bobrai-restore", dumps).run("restore")
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert await counts(empty) == await counts(full)
        again = job(run_folder, empty, "bobrai-restore", dumps).run("restore")
        assert again.returncode == 0, "over a database that has all of it: " + again.stderr
        assert (await counts(empty))["tasks"] == TASKS
    finally:
        empty.stop()


@asynccontextmanager
async def process(server: Server, name: str) -> AsyncIterator[None]:
    """A process of bobrAI that lives: it asks something every now and then."""

    async def ask() -> None:
        while True:
            await connection.execute("SELECT 1")
            await asyncio.sleep(0.1)

    async with connected(server.address(), server_settings={"application_name": name}) as connection:
        asking = asyncio.create_task(ask())
        yield
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.fixture
def dumped(run_folder: RunFolder, full: Server, dumps: Path) -> Path:
    """A backup volume that holds a dump."""
    done = job(run_folder, full, "bobrai-backup", dumps).run("backup")
    assert done.returncode == 0, done.stderr
    return dumps


async def test_a_restore_refuses_at_once_and_names_who_works_and_how_to_stop_them(
    run_folder: RunFolder, full: Server, dumped: Path
) -> None:
    restore = job(run_folder, full, "bobrai-restore", dumped)
    async with process(full, "bobrai-api"), process(full, "bobrai-heartbeat"), process(full, "bobrai-worker"):
        begun = time.monotonic()
        refused = await asyncio.to_thread(restore.run, "restore")
        assert time.monotonic() - begun < 10, "no waiting for what would have to be stopped"
    assert refused.returncode == 1
    assert "REFUSED, nothing was changed" in refused.stderr
    assert ".dump" not in refused.stdout
    assert "API (1), workers (2)" in refused.stderr
    assert (
        "kubectl --namespace bobrai scale deployment bobrai-api bobrai-dispatcher bobrai-worker-default --replicas 0\n"
        "kubectl --namespace bobrai wait pod --for=delete"
    ) in refused.stderr


async def test_a_restore_waits_only_for_what_nobody_uses_any_more_and_says_so(
    run_folder: RunFolder, full: Server, dumped: Path
) -> None:
    restore = job(run_folder, full, "bobrai-restore", dumped)
    worker = {"application_name": "bobrai-worker"}
    # the external metrics are not scaled to none, and look at the workers every few seconds
    async with connected(full.address(), server_settings=worker) as left, process(full, "bobrai-external-metrics"):
        await left.execute("SELECT 1")
        restored = await asyncio.to_thread(restore.run, "restore")
    assert restored.returncode == 0, restored.stderr
    assert "idle connections of workers (1)" in restored.stdout
    assert "restore: done" in restored.stdout


async def test_a_restore_that_waits_refuses_when_bobrai_comes_back(
    run_folder: RunFolder, full: Server, dumped: Path
) -> None:
    restore = job(run_folder, full, "bobrai-restore", dumped)
    worker = {"application_name": "bobrai-worker"}
    async with connected(full.address(), server_settings=worker) as left:
        await left.execute("SELECT 1")
        running = restore.start("restore")
        await eventually(lambda: "idle connections of workers (1)" in running.log_tail(), 15)
        async with connected(full.address(), server_settings={"application_name": "bobrai-dispatcher"}) as back:
            await back.execute("SELECT 1")
            await eventually(lambda: not running.is_running())
    assert "in use by dispatcher (1)" in running.log_tail()
    assert "restore: done" not in running.log_tail()


async def test_a_restore_that_waits_ends_when_it_cannot_ask_who_works(
    run_folder: RunFolder, full: Server, dumped: Path
) -> None:
    restore = job(run_folder, full, "bobrai-restore", dumped)
    async with (
        connected(full.superuser()) as superuser,
        connected(full.address(), server_settings={"application_name": "bobrai-worker"}) as left,
    ):
        await left.execute("SELECT 1")
        running = restore.start("restore")
        await eventually(lambda: "idle connections of workers (1)" in running.log_tail(), 15)
        try:
            await superuser.execute("ALTER ROLE bobrai CONNECTION LIMIT 0")
            await eventually(lambda: not running.is_running())
        finally:
            await superuser.execute("ALTER ROLE bobrai CONNECTION LIMIT -1")
    assert "too many connections" in running.log_tail()
    assert ".dump" not in running.log_tail()


def test_the_commands_that_stop_bobrai_are_those_of_this_release() -> None:
    values = {"fullnameOverride": "tasks", "autoscaling": {"provider": "keda"}}
    values |= {"workers": {"pools": {"media": {}, "still": {"autoscaling": {"enabled": False}}}}}
    rendered = render(values, namespace="shop", api_versions=CRD_APIS)
    restore = rendered.one("CronJob", "tasks-restore").container("restore")
    environment = {item["name"]: item.get("value") for item in restore["env"]}
    scaled = "tasks-worker-default tasks-worker-media"
    others = "tasks-api tasks-dispatcher"
    assert environment["STOP"].splitlines()[:2] == [
        f"kubectl --namespace shop annotate --overwrite scaledobject {scaled} autoscaling.keda.sh/paused=true",
        f"kubectl --namespace shop scale deployment {others} {scaled} tasks-worker-still --replicas 0",
    ]
    assert rendered.one("ScaledObject", "tasks-worker-media")


def test_old_dumps_are_removed_and_the_newest_never(run_folder: RunFolder, full: Server, dumps: Path) -> None:
    ages = {"bobrai-20200101T000000Z.dump": 7.1, "bobrai-20200102T000000Z.dump": 6.9, "notes.txt": 100}
    ages |= {"bobrai-20200103T000000Z.dump.partial": 2, "bobrai-20200104T000000Z.dump.partial": 0.1}
    for name, days in ages.items():
        (dumps / name).write_text("")
        (dumps / name).chmod(0o666)
        os.utime(dumps / name, (time.time() - days * DAY,) * 2)
    done = job(run_folder, full, "bobrai-backup", dumps).run("backup")
    assert done.returncode == 0, done.stderr
    left = {file.name for file in dumps.iterdir()}
    gone = {"bobrai-20200101T000000Z.dump", "bobrai-20200103T000000Z.dump.partial"}
    assert set(ages) - left == gone
    assert len(left - set(ages)) == 1, "the dump of today"


def test_a_failed_dump_leaves_no_file_and_removes_none(run_folder: RunFolder, full: Server, dumps: Path) -> None:
    old = dumps / "bobrai-20200101T000000Z.dump"
    old.write_text("")
    os.utime(old, (0, 0))
    failed = job(run_folder, full, "bobrai-backup", dumps, PGPASSWORD="wrong", WAIT_SECONDS="0").run("backup")
    assert failed.returncode == 1
    assert "did not answer" in failed.stderr
    assert list(dumps.iterdir()) == [old]


def test_a_dump_that_does_not_exist_is_named_with_those_that_do(
    run_folder: RunFolder, full: Server, dumps: Path
) -> None:
    (dumps / "bobrai-20200101T000000Z.dump").write_text("")
    done = job(run_folder, full, "bobrai-restore", dumps, DUMP="other.dump").run("restore")
    assert done.returncode == 1
    assert 'no dump "other.dump"' in done.stderr
    assert "bobrai-20200101T000000Z.dump" in done.stderr


def test_backups_do_not_overlap_and_keep_no_heap_of_finished_jobs() -> None:
    rendered = render({"backup": {"keepDays": 30}})
    schedule = rendered.one("CronJob", "bobrai-backup")
    assert schedule.spec["concurrencyPolicy"] == "Forbid"
    assert (schedule.spec["successfulJobsHistoryLimit"], schedule.spec["failedJobsHistoryLimit"]) == (1, 3)
    assert {"name": "KEEP_DAYS", "value": "30"} in schedule.container("backup")["env"]
    assert rendered.one("CronJob", "bobrai-restore").spec["suspend"] is True


def test_a_dump_goes_past_the_pooler() -> None:
    environment = {item["name"]: item.get("value") for item in _first(render()).container("backup")["env"]}
    assert (environment["PGHOST"], environment["PGPORT"]) == (SERVICE, "5432")


def test_the_first_backup_gives_the_volume_its_first_user() -> None:
    """`helm --wait` waits until a claim is bound, and many classes bind it only when a pod uses it."""
    rendered = render()
    claim = rendered.one("PersistentVolumeClaim", "bobrai-backup")
    volumes = {volume["name"]: volume for volume in (_first(rendered).pod or {})["volumes"]}
    assert volumes["dumps"]["persistentVolumeClaim"]["claimName"] == claim.name
    assert claim.annotations["helm.sh/resource-policy"] == "keep"


def test_a_changed_job_is_another_job() -> None:
    """A Job's pod cannot be changed, so an upgrade that changed it under the same name would fail."""
    changed = render({"images": {"postgresql": {"tag": "18.7-trixie"}}})
    assert _first(changed).name != _first(render()).name
    assert _first(render({"api": {"replicas": 7}})).name == _first(render()).name


def test_the_job_of_an_upgrade_that_failed_goes_by_itself_and_no_wait_for_an_upgrade_misses_it() -> None:
    """Helm knows the objects of releases that succeeded: what a failed one made is nobody's."""
    job = _first(render({"backup": {"deadlineSeconds": 600}}))
    assert "helm.sh/hook" not in job.annotations, "Helm would wait for the dump, before the volume has a disk"
    assert job.spec["activeDeadlineSeconds"] == 600
    assert 30 * 60 < job.spec["ttlSecondsAfterFinished"] <= 3600, "longer than the docs let `helm --wait` take"


def test_other_modes_have_backups_of_their_own() -> None:
    values = {"postgresql": {"mode": "operator", "operator": {"backup": {"enabled": True}}}}
    operator = render(values, api_versions=CRD_APIS)
    assert [item.name for item in operator if item.kind in {"CronJob", "PersistentVolumeClaim"}] == []
    scheduled = operator.one("ScheduledBackup", "bobrai-backup")
    assert len(scheduled.spec["schedule"].split()) == 6


def _first(rendered: Any) -> Manifest:
    (found,) = [item for item in rendered.all("Job") if item.name.startswith("bobrai-backup-")]
    return found
