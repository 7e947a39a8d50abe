"""What tasks may ask for: a process where handlers hurt nobody, batches, limits, being the only one of its kind."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.installation import Installation
from tests.cluster.preflight import RELEASE

WORKER = "worker-default"
HARM = {"spin": "timeout", "hoard": "memory_limit", "fault": "crashed", "leave": "crashed"}
"""The types that do harm, and the reason with which each of their tasks fails."""
HARMS = 5
BATCHED, BATCH_SIZE = 200, 10
WORKERS, ACCOUNTS, OF_EACH, AT_ONCE = 3, ("ada", "bob", "cid"), 40, 3
PAUSE_SECONDS = 0.5
DOUBLES = 100


def harm_nobody(installation: Installation) -> str:
    """Handlers that hang, hoard, crash and leave end as what they did, and their worker's pod has not noticed."""
    before = _restarts(installation)
    load = installation.load
    tasks = {kind: load.submit({"type": kind, "payload": None}, HARMS) for kind in HARM}
    beside = load.submit({"type": "echo", "payload": "beside"}, HARMS)
    assert load.wait_done(beside) == ["beside"] * HARMS
    ends = {kind: load.wait_ended(ids) for kind, ids in tasks.items()}
    for kind, reason in HARM.items():
        found = [task["errors"][-1]["reason"] if task["errors"] else task["status"] for task in ends[kind]]
        assert found == [reason] * HARMS, f"{kind} ended as {found}"
    assert "SIGSEGV" in (said := ends["fault"][0]["errors"][-1]["message"]), said
    load.prove()
    # the backlog may have brought a pod more
    restarted = {pod: times for pod, times in _restarts(installation).items() if times > before.get(pod, 0)}
    assert not restarted, f"worker pods were restarted: {restarted}, before {before}"
    return (
        f"{HARMS} each of {', '.join(f'{kind} ({reason})' for kind, reason in HARM.items())}; no pod was restarted. "
        f"{ends['hoard'][0]['errors'][-1]['message']}"
    )


def batch(installation: Installation) -> str:
    """Tasks that wait together reach their handler together, and each has a result of its own."""
    load = installation.load
    results = load.wait_done(load.submit({"type": "gather", "payload": 1}, BATCHED))
    sizes = [result["size"] for result in results]
    calls = sum(1 / size for size in sizes)
    assert max(sizes) <= BATCH_SIZE
    assert calls <= BATCHED / BATCH_SIZE * 2, f"{BATCHED} tasks reached their handler in {calls:.0f} calls: {sizes}"
    return f"{BATCHED} tasks reached a handler with batches of {BATCH_SIZE} in {calls:.0f} calls"


def keep_limits(installation: Installation) -> str:
    """Workers and a dispatcher are killed, and never more of an account runs at once than its limit says."""
    load = installation.load
    limits = {"per_key": {"key": "/account", "concurrency": AT_ONCE}}
    with _workers(installation, WORKERS), ThreadPoolExecutor(1) as aside:
        load.request("PATCH", "/api/v1/types/account", {"limits": limits})
        try:
            tasks = [
                task for account in ACCOUNTS
                for task in load.submit(
                    {"type": "account", "payload": {"account": account, "seconds": PAUSE_SECONDS}}, OF_EACH
                )
            ]  # fmt: skip
            watched = aside.submit(load.watch, "account", "account")
            killed = [installation.pods(each)[-1]["metadata"]["name"] for each in (WORKER, "dispatcher")]
            installation.kubectl.run("delete", "pod", *killed, "--force", "--grace-period=0")
            load.wait_done(tasks)
            seen = watched.result()
        finally:
            load.request("PATCH", "/api/v1/types/account", {"limits": None})
    most = seen["most"]
    assert set(most) == set(ACCOUNTS), f"not every account was seen to run: {seen}"
    assert max(most.values()) <= AT_ONCE, f"more than {AT_ONCE} of an account ran at once: {seen}"
    return (
        f"{len(tasks)} tasks of {len(ACCOUNTS)} accounts on {WORKERS} workers, one of them and a dispatcher killed: at "
        f"most {max(most.values())} of an account ran at once in {seen['samples']} samples"
    )


def be_unique(installation: Installation) -> str:
    """Submits of the same thing at once, over all API pods, are one task."""
    load = installation.load
    rule = {"key": "/order", "for_seconds": 3600, "while": "always"}
    answers = load.race({"type": "echo", "payload": {"order": 17}, "unique": rule}, DOUBLES)
    assert answers["answers"] == {"201": 1, "200": DOUBLES - 1}, answers
    assert len(answers["ids"]) == 1, answers
    load.wait_done(answers["ids"])
    return f"{DOUBLES} submits of one order at once: one 201, {DOUBLES - 1} x 200 with its id"


def _restarts(installation: Installation) -> dict[str, int]:
    """How often the containers of each worker's pod were restarted."""
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
        for pod in installation.pods(WORKER)
    }


@contextlib.contextmanager
def _workers(installation: Installation, number: int) -> Iterator[None]:
    """So many workers at least while the block runs."""
    kubectl, name = installation.kubectl, f"{RELEASE}-{WORKER}"
    scaled = kubectl.exists("hpa", name)
    before = kubectl.get("hpa", name)["spec"]["minReplicas"] if scaled else installation.replicas(WORKER)

    def scale(to: int) -> None:
        if scaled:
            kubectl.run("patch", "hpa", name, "--patch", json.dumps({"spec": {"minReplicas": to}}))
        # an autoscaler would get to it at its next round
        kubectl.run("scale", "deployment", name, f"--replicas={to}")

    scale(number)
    try:
        installation.wait_ready()
        yield
    finally:
        scale(before)
