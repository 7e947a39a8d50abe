"""A backup, and a restore that is refused while bobrAI works and brings the older tasks back once it does not."""

import contextlib
import re
from collections.abc import Iterator

from tests.cluster.installation import COMPONENT, INSTANCE, LOOK_SECONDS, Installation
from tests.cluster.preflight import RELEASE
from tests.cluster.report import NotRun
from tests.support.eventually import eventually_sync

TASKS = 20
JOB_SECONDS = 300.0
REFUSAL_SECONDS = 60.0
STOP_SECONDS = 400.0
OLDER, NEWER = "before the backup", "after the backup"


def back_up(installation: Installation) -> str:
    """A Job of the backup's CronJob writes a dump."""
    _check_there_is_one(installation)
    ended, log = _run_job(installation, "backup", JOB_SECONDS)
    assert ended == "Complete", f"the backup ended as {ended}:\n{log}"
    return log.strip().splitlines()[-1]


def restore(installation: Installation) -> str:
    """Tasks of before the backup are there with their results, later ones are not."""
    _check_there_is_one(installation)
    load = installation.load
    older = load.submit({"type": "echo", "payload": OLDER}, TASKS)
    load.wait_done(older)
    ended, log = _run_job(installation, "backup", JOB_SECONDS, "before-restore")
    assert ended == "Complete", f"the backup ended as {ended}:\n{log}"
    newer = load.submit({"type": "echo", "payload": NEWER}, TASKS)
    load.wait_done(newer)

    ended, log = _run_job(installation, "restore", REFUSAL_SECONDS, "while-used")
    assert ended == "Failed", f"the restore ended as {ended} while bobrAI worked:\n{log}"
    assert "REFUSED" in log, f"the restore does not say that it refused:\n{log}"
    assert load.statuses(newer) == [200] * TASKS, "a refused restore changed something"

    with _stopped(installation):
        ended, log = _run_job(installation, "restore", JOB_SECONDS, "stopped")
    assert ended == "Complete", f"the restore ended as {ended}:\n{log}"
    installation.wait_ready()
    assert load.wait_done(older) == [OLDER] * TASKS
    assert load.statuses(newer) == [404] * TASKS, "tasks of after the backup are still there"
    load.prove()
    return (
        f"refused at once while bobrAI worked; after scaling to none, {TASKS} tasks of before the backup were back "
        f"with their results, {TASKS} later ones gone, and new ones ran"
    )


def _check_there_is_one(installation: Installation) -> None:
    if not installation.kubectl.exists("cronjob", f"{RELEASE}-backup"):
        raise NotRun("the values have no backup of the chart's own")


def _run_job(installation: Installation, cron_job: str, seconds: float, name: str = "now") -> tuple[str, str]:
    """Run a CronJob once; returns how it ended and its log."""
    kubectl, job = installation.kubectl, f"{cron_job}-{name}"
    kubectl.run("create", "job", job, f"--from=cronjob/{RELEASE}-{cron_job}")

    def ended() -> str:
        conditions = kubectl.get("job", job)["status"].get("conditions", [])
        return next((each["type"] for each in conditions if each["type"] in {"Complete", "Failed"}), "")

    how = eventually_sync(ended, seconds, message=f"the Job {job} ends", longest_pause=LOOK_SECONDS)
    return how, kubectl.attempt("logs", f"job/{job}").stdout


@contextlib.contextmanager
def _stopped(installation: Installation) -> Iterator[None]:
    """Scale whatever a restore must not meet to none, and back at the end."""
    parts = {
        each["metadata"]["labels"][COMPONENT]: each for each in installation.workloads()
        if re.match("api$|dispatcher$|worker-", each["metadata"]["labels"][COMPONENT])
    }  # fmt: skip
    deployments = {f"deployment/{each['metadata']['name']}": each["spec"]["replicas"] for each in parts.values()}
    installation.kubectl.run("scale", *deployments, "--replicas=0")
    try:
        installation.kubectl.run(
            "wait", "pod", "--for=delete", f"--timeout={STOP_SECONDS:g}s",
            f"--selector={INSTANCE},{COMPONENT} in ({','.join(parts)})", seconds=STOP_SECONDS + 30,
        )  # fmt: skip
        yield
    finally:
        for deployment, replicas in deployments.items():
            installation.kubectl.run("scale", deployment, f"--replicas={replicas}")
