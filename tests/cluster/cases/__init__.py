"""What is tried on the release, in this order; each case leaves it ready for the next one.

A case returns what was seen, raises NotRun where the cluster cannot try it, and fails with any other exception.
"""

from collections.abc import Callable

from tests.cluster.cases import backup, handlers, kills, life, scaling, upgrade
from tests.cluster.installation import Installation

CASES: dict[str, Callable[[Installation], str]] = {
    "install": life.install,
    "smoke": life.smoke,
    "scale by backlog": scaling.scale_by_backlog,
    "harmful handlers": handlers.harm_nobody,
    "batches": handlers.batch,
    "limits": handlers.keep_limits,
    "unique": handlers.be_unique,
    **kills.CASES,
    "upgrade under load": upgrade.upgrade_under_load,
    "upgrade PostgreSQL": upgrade.upgrade_database,
    "backup": backup.back_up,
    "restore": backup.restore,
    "uninstall": life.uninstall,
}
