"""The handler of /internal/scaling: one number for an autoscaler that can only read numbers over HTTP, such as KEDA.

What is not known is an error and never a number: the autoscaler then holds on to what it has, while it would take a
zero for idleness.
"""

import msgspec

from bobrai.api import problems, schemas
from bobrai.api.problems import Fault, Problem
from bobrai.api.web import Reply, Request
from bobrai.store import backlogs
from bobrai.store.pool import Executor


class ScalingView(msgspec.Struct):
    """The tasks that are due or run, of all the queues that were asked for."""

    backlog: int


class ScalingRoutes:
    """The backlog of some queues, or of all."""

    def __init__(self, database: Executor, stale_seconds: float) -> None:
        self._database = database
        self._stale_seconds = stale_seconds

    async def backlog(self, request: Request) -> Reply:
        """Return the sum; a queue that does not exist has no tasks, but one of those asked for must."""
        names = schemas.query(schemas.ScalingQuery, request.query_string).names()
        grant = request.principal.grant
        if not grant.has_whole_queues:
            raise problems.outside_grant([Fault("", "the credential does not reach all tasks of a queue")])
        every = await backlogs.every(self._database)
        found = [each for each in every if (not names or each.queue in names) and grant.has_queue(each.queue)]
        if not found:
            raise Problem("queue-not-found", "None of these queues exists")
        backlogs.require_fresh(found, self._stale_seconds)
        return Reply(msgspec.json.encode(ScalingView(sum(each.tasks for each in found))))
