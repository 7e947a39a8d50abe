"""A whole release runs from its manifests: hardened as they say, in any order, through the loss of its parts.

The cases share one release and leave it ready, so any order will do.
"""

from tests.pods.conftest import FIGURES
from tests.pods.load import Load
from tests.pods.release import READY_SECONDS, Release

# So long a client is kept at most; what a replacement takes is printed.
HELD_SECONDS = 10.0


def test_helm_test_passes_and_a_handler_written_in_values_runs(release: Release) -> None:
    assert "passed in" in release.smoke.run(180)
    release.smoke.remove()
    assert release.wait_done(release.submit(type="greet", payload="pod"))["result"] == "Hello, pod!"


def test_brokers_form_one_cluster_with_quorum_queues_policies_and_no_guest(release: Release) -> None:
    first = release.rabbitmqs[0]
    status = first.exec("rabbitmqctl", "cluster_status", "--formatter", "json")
    for pod in release.rabbitmqs:
        assert f"rabbit@{pod.name}.bobrai-rabbitmq-nodes.bobrai" in status
    policies = first.exec("rabbitmqctl", "list_policies", "-p", "bobrai", "--silent")
    assert "bobrai-queues" in policies
    assert "bobrai-dead-letters" in policies
    queues = first.exec("rabbitmqctl", "list_queues", "-p", "bobrai", "--silent", "name", "type", "members", "policy")
    line = next(each for each in queues.splitlines() if each.startswith("bobrai.default\t"))
    assert "quorum" in line
    assert line.count("rabbit@") == len(release.rabbitmqs)
    aside = next(each for each in queues.splitlines() if each.startswith("bobrai._dead-letters\t"))
    assert aside.endswith("bobrai-dead-letters"), "it is there before a message has to be put aside"
    assert "guest" not in first.exec("rabbitmqctl", "list_users", "--silent")


def test_application_is_no_superuser_and_speaks_through_the_pooler(release: Release) -> None:
    superusers = release.postgresql.exec(
        "psql", "-U", "postgres", "-tAc", "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY 1"
    )
    assert superusers.split() == ["postgres"]
    addresses = release.postgresql.exec(
        "psql", "-U", "postgres", "-tAc",
        "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE usename = 'bobrai' AND query NOT LIKE 'LISTEN%'",
    )  # fmt: skip
    poolers = {pod.address for pod in release.pgbouncers}
    listening = {release.dispatcher.address, release.api.address}
    assert set(addresses.split()) <= poolers | listening
    assert set(addresses.split()) & poolers


def test_loss_of_a_broker_stops_no_task(release: Release) -> None:
    release.rabbitmqs[2].kill()
    release.wait_done(release.submit(type="echo", payload="two brokers left"))
    release.node.start([release.rabbitmqs[2]], READY_SECONDS)


def test_tasks_and_cluster_survive_restarts_of_database_and_brokers(release: Release) -> None:
    before = release.wait_done(release.submit(type="echo", payload="before"))
    waiting = release.submit(type="echo", payload="waiting", delay_seconds=5)
    assert release.postgresql.stop() == 0
    release.postgresql.remove()
    for pod in release.rabbitmqs:
        pod.kill()
    release.node.start([release.postgresql, *release.rabbitmqs], READY_SECONDS)
    assert release.wait_done(before["id"])["result"] == "before"
    assert release.wait_done(waiting, 120)["result"] == "waiting"


def test_submits_wait_for_a_replaced_database_pod_and_none_is_refused(release: Release) -> None:
    with Load(release) as load:
        for _ in range(3):
            load.wait_accepted(50)
            assert release.postgresql.stop() == 0
            release.postgresql.remove()
            release.node.start([release.postgresql], READY_SECONDS)
        load.wait_accepted(50)
    FIGURES.append(f"PostgreSQL's pod replaced, three times: a submit waited for {load.longest_seconds:.1f} s at most")
    assert not load.refused
    assert load.longest_seconds < HELD_SECONDS


def test_backup_job_dumps_what_the_restore_job_brings_back(release: Release) -> None:
    kept = release.wait_done(release.submit(type="echo", payload="kept"))
    job = next(each for each in release.node.release.all("Job") if "backup" in each.name)
    backup = release.node.add("Job", job.name)[0]
    assert "tables" in backup.run(120)
    release.wait_done(release.submit(type="echo", payload="after the dump"))
    bobrai = [release.api, release.dispatcher, release.worker]
    for pod in bobrai:
        assert pod.stop() == 0
        pod.remove()
    restore = release.node.add("CronJob", "bobrai-restore")[0]
    assert "restore: done" in restore.run(120)
    release.node.start(bobrai, READY_SECONDS)
    assert release.task(kept["id"])["result"] == "kept"
    newest = release.postgresql.exec("psql", "-U", "postgres", "bobrai", "-tAc", "SELECT max(id) FROM tasks")
    assert int(newest) == kept["id"]
    for pod in (backup, restore):
        pod.remove()


def test_a_pod_that_is_told_to_end_finishes_its_work_within_its_grace(release: Release) -> None:
    running = release.submit(type="demo", payload="in the middle")
    while release.task(running)["status"] == "pending":
        pass
    assert release.worker.stop() == 0
    task = release.wait_done(running, 5)
    assert (task["attempt"], task["result"]) == (1, "processed: in the middle (1sec)")
    for pod in (release.dispatcher, release.api, release.pgbouncers[1]):
        assert pod.stop() == 0, pod.log()
        pod.remove()
    release.worker.remove()
    release.node.start([release.pgbouncers[1], release.api, release.dispatcher, release.worker], READY_SECONDS)
