"""The handler of /internal/scaling: one number for an autoscaler that can only read numbers over HTTP, such as KEDA.

Served when a token is set, and only to who shows it. What is not known is an error and never a number: the autoscaler
then holds on to what it has, while it would take a zero for idleness.
"""

import hmac

import msgspec
from pydantic import SecretStr

from bobrai.api import schemas
from bobrai.api.problems import Problem
from bobrai.api.web import Reply, Request
from bobrai.store import backlogs
from bobrai.store.pool import Executor


class ScalingView(msgspec.Struct):
    """The tasks that are due or run, of all the queues that were asked for."""

    backlog: int


class ScalingRoutes:
    """The backlog of some queues, or of all."""

    def __init__(self, database: Executor, token: SecretStr, stale_seconds: float) -> None:
        self._database = database
        self._expected = b"Bearer " + token.get_secret_value().encode()
        self._stale_seconds = stale_seconds

    async def backlog(self, request: Request) -> Reply:
        """Return the sum; a queue that does not exist has no tasks, but one of those asked for must."""
        self._admit(request)
        names = schemas.query(schemas.ScalingQuery, request.query_string).names()
        found = [each for each in await backlogs.every(self._database) if not names or each.queue in names]
        if not found:
            raise Problem("queue-not-found", "None of these queues exists")
        backlogs.require_fresh(found, self._stale_seconds)
        return Reply(msgspec.json.encode(ScalingView(sum(each.tasks for each in found))))

    def _admit(self, request: Request) -> None:
        if not hmac.compare_digest(request.headers.get(b"authorization", b""), self._expected):
            raise Problem("unauthorized", "Show the bearer token", headers=((b"www-authenticate", b"Bearer"),))
