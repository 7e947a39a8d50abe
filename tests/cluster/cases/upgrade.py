"""Upgrades while tasks flow: one that replaces every pod but PostgreSQL's, and one that replaces PostgreSQL's.

They are two because docs/operations.md promises two things: the first is noticed by no request, and for the second
requests wait some seconds, since there is one PostgreSQL. Neither refuses any.
"""

from tests.cluster.installation import COMPONENT, Installation, uids
from tests.cluster.load import Seen
from tests.cluster.report import NotRun

DATABASE = "postgresql"
ROLLED = "--set-string=pod.annotations.rolled=yes"
DATABASE_ROLLED = "--set-string=postgresql.pod.annotations.rolled=yes"


def upgrade_under_load(installation: Installation) -> str:
    """`helm upgrade` with other values replaces every pod but the database's, and refuses nobody."""
    before = [pod for pod in installation.pods() if pod["metadata"]["labels"][COMPONENT] != DATABASE]
    seen = _upgrade(installation, "upgrade", ROLLED)
    stayed = [pod["metadata"]["name"] for pod in installation.pods() if pod["metadata"]["uid"] in uids(before)]
    assert not stayed, f"not replaced: {stayed} ({seen})"
    return f"{len(before)} pods replaced: {seen}; all done"


def upgrade_database(installation: Installation) -> str:
    """`helm upgrade` replaces PostgreSQL's pod: nothing is lost, and nobody is refused."""
    if not installation.has(DATABASE):
        raise NotRun("the values bring no PostgreSQL of the release's own")
    before = uids(installation.pods(DATABASE))
    seen = _upgrade(installation, "upgrade-database", ROLLED, DATABASE_ROLLED)
    assert not uids(installation.pods(DATABASE)) & before, f"PostgreSQL was not replaced ({seen})"
    return f"{seen}; all done"


def _upgrade(installation: Installation, name: str, *arguments: str) -> Seen:
    with installation.load.flowing(name):
        installation.apply("upgrade", *arguments)
        installation.wait_ready()
        installation.load.prove()
    seen = installation.load.audit(name)
    wrong = seen.wrong
    if seen.refused:
        wrong.append(f"{seen.refused} requests were refused or cut: {seen.refusals}")
    assert not wrong, f"{'; '.join(wrong)} ({seen})"
    return seen
