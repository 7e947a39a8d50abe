"""The bundled RabbitMQ: rendered settings, definitions and scripts on three real nodes that form one cluster."""

import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from bobrai.broker.definitions import definitions
from bobrai.broker.queues import ARGUMENTS, DEAD_LETTERS
from tests.charts.helm import CRD_APIS, Manifest, refusal, render
from tests.charts.postgresql import AWKWARD
from tests.charts.quantities import quantity
from tests.charts.rabbitmq import NAME, Cluster, Node, started
from tests.support.eventually import eventually, eventually_sync
from tests.support.rabbitmq_management import ManagementError
from tests.support.run_folder import RunFolder

pytestmark = [pytest.mark.timeout(150), pytest.mark.xdist_group("chart-rabbitmq")]

QUEUE = "bobrai.default"
SHORT = {"rabbitmq": {"quorumWaitSeconds": 3, "drainSeconds": 3}}


@pytest.fixture(scope="module")
def cluster(run_folder: RunFolder) -> Iterator[Cluster]:
    """Three nodes that formed themselves from empty volumes; tests leave all of them running."""
    with started(run_folder, SHORT) as cluster:
        yield cluster


@asynccontextmanager
async def channel(node: Node, password: str = AWKWARD, user: str = "bobrai") -> AsyncIterator[AbstractChannel]:
    """A channel in the product's virtual host, closed at the end of the block."""
    url = f"amqp://{quote(user)}:{quote(password, safe='')}@127.0.0.1:{node.port}/bobrai"
    connection = await aio_pika.connect(url, timeout=10)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def declare(node: Node, messages: int = 0) -> None:
    """The product's queue, as the dispatcher declares it, with messages that are confirmed."""
    async with channel(node) as open_channel:
        queue = await open_channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.purge()
        for number in range(messages):
            body = aio_pika.Message(str(number).encode(), delivery_mode=2)
            await open_channel.default_exchange.publish(body, QUEUE)


async def ready(node: Node) -> int:
    """Messages in the queue, as a declare says."""
    async with channel(node) as open_channel:
        queue = await open_channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        return int(queue.declaration_result.message_count or 0)


def described(node: Node) -> dict[str, Any]:
    """What the management API says of the queue, once it tells its policy, which comes late for a new queue."""
    management = node.management()
    found: list[dict[str, Any]] = eventually_sync(
        lambda: [
            queue for queue in management.call("GET", "/queues/bobrai") if queue["name"] == QUEUE and "policy" in queue
        ],
        30,
        message="a policy",
    )
    return found[0]


def members(node: Node) -> dict[str, str]:
    """The queue's copies with their states."""
    told = node.control("rabbitmq-queues", "quorum_status", "--vhost", "bobrai", QUEUE, "--formatter", "json")
    return {member["Node Name"]: member["Raft State"] for member in json.loads(told)}


def everyone(cluster: Cluster) -> set[str]:
    return {node.node_name for node in cluster.nodes}


async def test_three_nodes_form_one_cluster_and_queues_live_on_all(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert set(cluster.running(node)) == everyone(cluster)
    await declare(cluster.nodes[1])
    assert set(members(cluster.nodes[0])) == everyone(cluster)


async def test_the_policies_are_those_that_the_product_prints(cluster: Cluster) -> None:
    wanted = definitions([], vhost="bobrai")
    config = cluster.rendered.one("ConfigMap", f"{NAME}-config").body["data"]
    assert _by_name(json.loads(config["definitions.json"])["policies"]) == _by_name(wanted["policies"])
    found = cluster.nodes[0].management().call("GET", "/policies/bobrai")
    assert _by_name(found) == _by_name(wanted["policies"])
    await declare(cluster.nodes[0])
    queue = described(cluster.nodes[0])
    assert queue["policy"] == "bobrai-queues"
    assert queue["effective_policy_definition"]["overflow"] == "reject-publish"


async def test_a_message_that_no_consumer_survives_becomes_a_dead_letter(cluster: Cluster) -> None:
    letters = f"bobrai.{DEAD_LETTERS}"
    await declare(cluster.nodes[0], messages=1)
    async with channel(cluster.nodes[0]) as open_channel:
        dead = await open_channel.declare_queue(letters, durable=True, arguments=ARGUMENTS)
        await dead.purge()
        queue = await open_channel.get_queue(QUEUE)
        limits = described(cluster.nodes[0])["effective_policy_definition"]
        for _ in range(limits["delivery-limit"] + 1):
            await (await queue.get(timeout=10)).reject(requeue=True)

        async def letter() -> Any:
            return await dead.get(fail=False)

        message = await eventually(letter, 10, message="a dead letter")
        await message.ack()
    assert message.body == b"0"
    assert message.headers["x-death"][0]["reason"] == "delivery_limit"
    assert limits["dead-letter-strategy"] == "at-least-once"
    assert await ready(cluster.nodes[0]) == 0


async def test_the_user_of_the_secret_is_the_only_one(cluster: Cluster) -> None:
    users = cluster.nodes[0].control("rabbitmqctl", "list_users", "--formatter", "json")
    assert json.loads(users) == [{"user": "bobrai", "tags": ["monitoring"]}]
    assert json.loads(cluster.nodes[0].control("rabbitmqctl", "list_vhosts", "--formatter", "json")) == [
        {"name": "bobrai"}
    ]
    for user, password in (("guest", "guest"), ("bobrai", "wrong"), ("", "")):
        with pytest.raises(ManagementError, match="401"):
            cluster.nodes[0].management(user, password).call("GET", "/whoami")
        with pytest.raises(Exception, match="ACCESS_REFUSED"):
            async with channel(cluster.nodes[0], password, user):
                pass


def test_the_rendered_settings_are_in_force(cluster: Cluster) -> None:
    said = cluster.nodes[0].control("rabbitmqctl", "environment")
    assert '{vm_memory_high_watermark,{absolute,"460MiB"}}' in said
    assert "{wal_max_size_bytes,67108864}" in said
    assert "rabbit_quorum_queue" in said
    log = (cluster.nodes[0].pod.folder / "server.log").read_text()
    assert "Server startup complete" in log, "logs go to the console"
    assert "\x1b[" not in log, "without colours"
    assert list(cluster.nodes[0].pod.volume("logs").glob("*.log")) == [], "and to no file"


async def test_a_password_of_the_secret_replaces_the_old_one_at_a_restart(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    node.stop()
    node.prepare(cluster.nodes, RABBITMQ_PASSWORD="another one")
    node.launch()
    node.wait_started()
    async with channel(cluster.nodes[0], "another one"):
        pass
    with pytest.raises(Exception, match="ACCESS_REFUSED"):
        async with channel(cluster.nodes[0]):
            pass
    # for the other tests, and in a tenth of the time of one more restart
    node.control("rabbitmqctl", "change_password", "bobrai", AWKWARD)
    node.prepare(cluster.nodes)
    async with channel(node):
        pass
    cluster.wait_whole()


@pytest.mark.parametrize("number", [2, 0], ids=["last", "first"])
async def test_a_node_that_lost_its_disk_joins_its_cluster_again(cluster: Cluster, number: int) -> None:
    lost, witness, other = cluster.nodes[number], cluster.nodes[1], cluster.nodes[2 - number]
    await declare(witness, messages=100)
    lost.kill()
    lost.lose_disk()
    said = lost.prepare(cluster.nodes)
    assert "the disk is empty and the cluster is there" in said
    lost.launch()
    # What it has forgotten may make it vote twice in one term, and end over two leaders; the next start joins them.
    lost.wait_started(restarts=1)
    cluster.wait_whole()
    eventually_sync(
        lambda: sorted(members(witness).values()) == ["follower", "follower", "leader"],
        30,
        message="all copies are back",
    )
    other.stop()
    assert await ready(lost) == 100, "its copy counts: with another node away there is still a majority"
    other.prepare(cluster.nodes)
    other.launch()
    other.wait_started()
    cluster.wait_whole()


def test_a_node_with_its_disk_asks_nobody(cluster: Cluster) -> None:
    assert cluster.nodes[0].prepare(cluster.nodes) == ""


async def test_all_nodes_start_again_after_all_were_gone(cluster: Cluster) -> None:
    await declare(cluster.nodes[0], messages=10)
    # the broker lists a new queue on disk a second or so after its declaration
    eventually_sync(lambda: all(node.lists_on_disk(QUEUE) for node in cluster.nodes), 30, message="listed on disk")
    cluster.kill()
    cluster.start()
    cluster.wait_whole()

    async def all_there() -> bool:
        return await ready(cluster.nodes[2]) == 10

    await eventually(all_there, 30, message="the messages are there again")


def test_the_last_node_of_an_uninstall_does_not_wait_for_ever(cluster: Cluster) -> None:
    """The module's last use of the cluster."""
    first, *others = cluster.nodes
    for node in others:
        node.kill()
    begun = time.monotonic()
    first.stop()
    # both waits together have 6 s; all else is programs that start and a server that ends, on a machine of any speed
    assert time.monotonic() - begun < 100


def test_the_grace_period_holds_all_that_a_stop_may_take() -> None:
    pod = render().one("StatefulSet", NAME).pod or {}
    environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert (
        pod["terminationGracePeriodSeconds"]
        >= int(environment["QUORUM_WAIT_SECONDS"]) + int(environment["DRAIN_SECONDS"]) + 30
    )
    assert pod["terminationGracePeriodSeconds"] <= 240, "an uninstall waits for it"


def test_a_node_is_named_so_that_the_first_one_can_be_found() -> None:
    """Peer discovery replaces the number in a node's own name: it needs STATEFULSET-NUMBER before the first dot."""
    for release in ("bobrai", "a-long-release-name-2-4-bobrai"):
        rendered = render(release=release)
        (name,) = [item.name for item in rendered.all("StatefulSet") if item.name.endswith("rabbitmq")]
        environment = _environment(rendered.one("StatefulSet", name), "rabbitmq")
        host = environment["NODE_HOST"].replace("$(POD_NAME)", f"{name}-2")
        node = environment["RABBITMQ_NODENAME"].replace("$(NODE_HOST)", host)
        found = re.fullmatch(r"([^@]+@)([^.]*-)([0-9]+)(.*)", node)
        assert found is not None
        assert found[2] + "0" == f"{name}-0"
        service = found[4].split(".")[1]
        headless = rendered.one("Service", service)
        assert headless.spec["publishNotReadyAddresses"] is True
        assert headless.spec["clusterIP"] == "None"
        assert rendered.one("StatefulSet", name).spec["serviceName"] == service
        peers = _environment(rendered.one("StatefulSet", name), "prepare")["PEERS"].split()
        assert node.replace("-2.", "-0.") + ":15672" in peers


@pytest.mark.parametrize("memory", ["512Mi", "768Mi", "2Gi", "16Gi"])
@pytest.mark.parametrize("disk", ["1Gi", "8Gi", "100Gi"])
def test_alarms_come_before_the_limits(memory: str, disk: str) -> None:
    values: dict[str, Any] = {"rabbitmq": {"resources": {"limits": {"memory": memory}}, "storage": {"size": disk}}}
    text = render(values).one("ConfigMap", f"{NAME}-config").body["data"]["rabbitmq.conf"]
    settings = dict(line.split(" = ") for line in text.splitlines())
    watermark = quantity(settings["vm_memory_high_watermark.absolute"].removesuffix("B"))
    free = quantity(settings["disk_free_limit.absolute"].removesuffix("B"))
    log = int(settings["raft.wal_max_size_bytes"])
    assert quantity(memory) * 0.5 <= watermark <= quantity(memory) * 0.65
    assert log * 4 <= quantity(memory)
    assert free <= quantity(disk) / 4


def test_a_memory_limit_below_the_log_is_refused() -> None:
    values = {"rabbitmq": {"resources": {"limits": {"memory": "200Mi"}}}}
    assert "a node needs at least 4 x rabbitmq.raftLogMebibytes" in refusal(values)


@pytest.mark.parametrize(("granted", "bound", "opened"), [(256, 100, 100), (256, 300, 256), (64, 300, 256)])
def test_a_node_opens_many_files_and_no_more_than_erlang_should_reserve_memory_for(
    tmp_path: Path, granted: int, bound: int, opened: int
) -> None:
    script = render().one("ConfigMap", f"{NAME}-config").body["data"]["start.sh"]
    assert "files=65536\n" in script
    (tmp_path / "start.sh").write_text(script.replace("files=65536", f"files={bound}"))
    server = tmp_path / "rabbitmq-server"
    server.write_text("#!/bin/sh\nulimit -n\n")
    server.chmod(0o755)
    command = ["bash", "-c", f"ulimit -n 256; ulimit -S -n {granted}; exec bash {tmp_path}/start.sh"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True, timeout=10)
    assert int(done.stdout) == opened


def test_an_even_number_of_nodes_is_refused() -> None:
    assert "use 1, 3 or 5" in refusal({"rabbitmq": {"replicas": 2}})


def test_no_probe_starts_a_program_and_none_kills_a_running_node() -> None:
    container = render().one("StatefulSet", NAME).container("rabbitmq")
    assert "livenessProbe" not in container
    assert container["readinessProbe"]["tcpSocket"] == {"port": "amqp"}
    assert container["startupProbe"]["httpGet"]["path"] == "/api/health/checks/reached-target-cluster-size"


def test_one_node_waits_for_nobody() -> None:
    rendered = render({"rabbitmq": {"replicas": 1}})
    assert rendered.find("PodDisruptionBudget", NAME) is None, "it would stop every drain"
    text = rendered.one("ConfigMap", f"{NAME}-config").body["data"]["rabbitmq.conf"]
    assert "target_cluster_size_hint = 1\n" in text
    assert "target_group_size = 1\n" in text


def test_the_operator_gets_the_same_policies_and_its_own_user() -> None:
    rendered = render({"rabbitmq": {"mode": "operator"}}, api_versions=CRD_APIS)
    cluster = rendered.one("RabbitmqCluster", NAME)
    pod = cluster.spec["override"]["statefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["initContainers"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["RABBITMQ_USER"]["valueFrom"]["secretKeyRef"]["name"] == f"{NAME}-default-user"
    assert environment["RABBITMQ_TAGS"]["value"] == "administrator"
    assert "definitions.local.path = /run/bobrai/definitions" in cluster.spec["rabbitmq"]["additionalConfig"]
    assert rendered.find("StatefulSet", NAME) is None
    policies = json.loads(rendered.one("ConfigMap", f"{NAME}-config").body["data"]["definitions.json"])["policies"]
    assert _by_name(policies) == _by_name(definitions([], vhost="bobrai")["policies"])


def test_a_missing_operator_is_named_with_its_command() -> None:
    assert "cluster-operator.yml" in refusal({"rabbitmq": {"mode": "operator"}})
    assert "cloudnative-pg" in refusal({"postgresql": {"mode": "operator"}})
    both = {"postgresql": {"mode": "operator"}, "rabbitmq": {"mode": "operator"}}
    assert render({**both, "validation": {"customResources": False}}).one("Cluster", "bobrai-postgresql")


def _environment(manifest: Manifest, container: str) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in manifest.container(container)["env"]}


def _by_name(policies: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {policy["name"]: policy for policy in policies}
