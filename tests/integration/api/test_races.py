"""Cancel and replay, whatever else happens to the task at that moment: the answer is 200 or 409, never another."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Sequence

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind
from bobrai.store import attempts, workers
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api
from tests.integration.store.builders import outcome, worker

TASKS = 150
CALLS = 2  # of each kind, for each task


async def churn(store: Database, ids: Sequence[int], done: asyncio.Event) -> None:
    """Claim, complete, retry, give back and reap all the time, as workers and the reaper do."""
    while not done.is_set():
        # Claims of the same hundreds of tasks may deadlock, and are tried again as every worker does.
        with contextlib.suppress(DatabaseUnavailable):
            await _one_round(store, ids)


async def _one_round(store: Database, ids: Sequence[int]) -> None:
    me = await worker(store)
    rows = await store.fetch("SELECT id, attempt FROM tasks WHERE id = ANY($1) AND status = 'pending'", ids)
    claims = await attempts.claim(store, me, [Hint(row["id"], row["attempt"]) for row in rows])
    kinds = list(OutcomeKind)
    ends = [outcome(claim, kind) for claim, kind in zip(claims, itertools.cycle([*kinds, None])) if kind is not None]
    results = [end for end in ends if end.kind is OutcomeKind.DONE]
    await attempts.complete(store, me, results)
    await attempts.end(store, me, [end for end in ends if end.kind is not OutcomeKind.DONE])
    await workers.unregister(store, me)
    await workers.take_back(store)


async def test_cancel_and_replay_answer_200_or_409_in_any_interleaving(api: Api, store: Database) -> None:
    ids = [await api.submit(max_attempts=100) for _ in range(TASKS)]
    calls = [f"/api/v1/tasks/{task_id}/{wish}" for task_id in ids for wish in ("cancel", "replay") * CALLS]
    random.Random(7).shuffle(calls)
    paths = iter(calls)
    answers: Counter[int] = Counter()

    async def client() -> None:
        for path in paths:
            answers[(await api.post(path)).status_code] += 1

    async def same_task() -> None:
        """Both wishes at once for one row after another."""
        for task_id in ids:
            both = await asyncio.gather(*(api.post(f"/api/v1/tasks/{task_id}/{w}") for w in ("cancel", "replay") * 2))
            answers.update(answer.status_code for answer in both)

    done = asyncio.Event()
    churning = [asyncio.create_task(churn(store, ids, done)) for _ in range(2)]
    await asyncio.gather(*(client() for _ in range(16)), same_task())
    done.set()
    await asyncio.gather(*churning)
    assert set(answers) == {200, 409}, answers
