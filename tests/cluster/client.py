"""What the pod of the client runs, inside the cluster: a program of the standard library alone, from a ConfigMap.

It submits until it is told to stop, counts every answer, and afterwards compares what was accepted with the rows.
In: a command and JSON. Out: one line of JSON. `load.py` drives it by `kubectl exec`.
"""

import http.client
import json
import os
import select
import sys
import threading
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

URL = urllib.parse.urlsplit(os.environ.get("BOBRAI_TEST_URL", "http://127.0.0.1:8001"))
KEY = os.environ.get("BOBRAI_TEST_KEY", "")
FOLDER = Path("/tmp")
ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.04
# a submit with a key is repeated for so long before it counts as lost
PERSISTENCE_SECONDS = 240.0
PAGE = 500
THREADS = 4
RACERS = 20
PROOF = "proof"
"""The payload of tasks that a test follows while others flow."""
CUT = "cut"
"""What stands for an answer that never came: a connection that ended, or silence."""

Body = dict[str, Any]


class Client:
    """One connection that is kept, as clients do, and made anew when it ended."""

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int | str, Body]:
        """Ask once; the status is CUT when no whole answer came."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"} | (
            {"Idempotency-Key": key} if key else {}
        )
        if self._connection is None or _was_ended(self._connection):
            self._connection = http.client.HTTPConnection(URL.hostname or "", URL.port or 80, timeout=ANSWER_SECONDS)
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            self._connection = None
            return CUT, {"detail": repr(error)}

    def insist(self, method: str, path: str, body: Any = None, key: str = "", seconds: float = 120.0) -> Body:
        """Ask until the answer is 2xx; raises TimeoutError with the last one."""
        until = time.monotonic() + seconds
        while True:
            status, answer = self.ask(method, path, body, key)
            if isinstance(status, int) and status < 300:
                return answer
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path}: {status} {json.dumps(answer)[:300]}")
            time.sleep(0.2)


def _was_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has ended a connection that was idle; HTTP clients look before they use it again."""
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


class Flow:
    """Submits from several threads: half of them with keys, repeated until their 201, half of them once and counted."""

    def __init__(self, stop: Path) -> None:
        self.stop = stop
        self.accepted: list[int] = []
        self.answers: Counter[str] = Counter()
        self.unknown = 0
        """Submits without a key that may or may not have made a row."""
        self.given_up = 0
        """Submits with a key that were never answered with 201."""
        self.refusals: dict[str, str] = {}
        """When each kind of refusal came first, in UTC as in the logs."""
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._gap = 0.0

    def run(self) -> Body:
        """Submit until the file `stop` appears, and return what was seen."""
        threads = [threading.Thread(target=self._submit, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._note_gap()
        return {
            "accepted": self.accepted, "answers": self.answers, "unknown": self.unknown, "given_up": self.given_up,
            "gap": round(self._gap, 2), "refusals": self.refusals,
        }  # fmt: skip

    def _submit(self, number: int) -> None:
        client, keyed = Client(), number % 2 == 0
        # some take their time, so that there is one to interrupt
        for turn in range(sys.maxsize):
            if self.stop.exists():
                return
            body = {"type": "pause", "payload": 3.0} if turn % 40 == 4 else {"type": "echo", "payload": turn}
            self._submit_one(client, body, str(uuid.uuid4()) if keyed else "")
            time.sleep(PAUSE_SECONDS)

    def _submit_one(self, client: Client, body: Body, key: str) -> None:
        until = time.monotonic() + PERSISTENCE_SECONDS
        while not self._count(*client.ask("POST", "/api/v1/tasks", body, key)):
            if not key or time.monotonic() > until:
                with self._lock:
                    self.given_up += bool(key)
                    self.unknown += not key
                return
            time.sleep(0.1)

    def _count(self, status: int | str, answer: Body) -> bool:
        with self._lock:
            self.answers[str(status)] += 1
            if status == 201:
                self.accepted.append(int(answer["task_id"]))
                self._note_gap()
            else:
                moment = time.strftime("%H:%M:%S", time.gmtime())
                self.refusals.setdefault(f"{status} {answer.get('detail', '')}"[:100], moment)
        return status == 201

    def _note_gap(self) -> None:
        now = time.monotonic()
        self._gap, self._last = max(self._gap, now - self._last), now


def tasks(client: Client, after: int = 0, **only: str) -> Iterator[Body]:
    """Every task with a greater id, newest first."""
    cursor = None
    while True:
        query = urllib.parse.urlencode({"limit": PAGE, **only} | ({"cursor": cursor} if cursor else {}))
        page = client.insist("GET", f"/api/v1/tasks?{query}")
        for task in page["tasks"]:
            if task["id"] <= after:
                return
            yield task
        cursor = page["next_cursor"]
        if cursor is None:
            return


def newest(client: Client) -> int:
    """The id of the newest task; 0 when there is none."""
    return next((int(task["id"]) for task in tasks(client)), 0)


def flow(name: str) -> Body:
    """Let tasks flow until the file NAME.stop appears, and leave what was seen in NAME.json for the audit."""
    before = newest(Client())
    (FOLDER / f"{name}.flowing").touch()
    seen = Flow(FOLDER / f"{name}.stop").run()
    draft = FOLDER / f"{name}.draft"
    draft.write_text(json.dumps({"before": before, **seen}))
    draft.rename(FOLDER / f"{name}.json")
    return {}


def audit(name: str, seconds: float) -> Body:
    """Wait until everything has ended, then compare the rows with what the flow saw."""
    client, until = Client(), time.monotonic() + seconds
    while unfinished := [task for status in ("processing", "pending") for task in tasks(client, status=status)]:
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    seen = json.loads((FOLDER / f"{name}.json").read_text())
    accepted = set(seen.pop("accepted"))
    before = seen.pop("before")
    found = {int(task["id"]): task for task in tasks(client, before) if task["payload"] != PROOF}
    states = Counter(found[each]["status"] for each in accepted if each in found)
    return {
        **seen,
        "accepted": len(accepted),
        "done": states.pop("done", 0),
        "other": states,
        "missing": sorted(accepted - found.keys())[:5],
        "unfinished": len(unfinished),
        "rows": len(found),
        "interrupted": Counter(_why(task) for task in found.values() if task["attempt"] > 1 or task["losses"] > 0),
    }


def _why(task: Body) -> str:
    """Why a task needed more than one attempt."""
    return str(task["errors"][-1]["reason"]) if task["errors"] else "given back"


def submit(body: Body, count: int) -> Body:
    """Submit the same task so many times in one request."""
    answer = Client().insist("POST", "/api/v1/tasks/batch", {"tasks": [body] * count}, str(uuid.uuid4()))
    return {"ids": answer["task_ids"]}


def ended(ids: list[int], seconds: float) -> Iterator[Body]:
    """Each of these tasks once it has ended, however."""
    client, until = Client(), time.monotonic() + seconds
    for each in ids:
        while (task := client.insist("GET", f"/api/v1/tasks/{each}?wait=5"))["status"] in {"pending", "processing"}:
            if time.monotonic() > until:
                raise TimeoutError(f"task {each} is {task['status']} after {task['attempt']} attempts")
        yield task


def wait_done(ids: list[int], seconds: float) -> Body:
    """Wait until these tasks are done, and return their results."""
    results = []
    for task in ended(ids, seconds):
        if task["status"] != "done":
            raise TimeoutError(f"task {task['id']} is {task['status']} after {task['attempt']} attempts")
        results.append(task["result"])
    return {"results": results}


def wait_ended(ids: list[int], seconds: float) -> Body:
    """Wait until these tasks have ended, however, and return them."""
    return {"tasks": list(ended(ids, seconds))}


def watch(type_: str, member: str, seconds: float) -> Body:
    """Look how many tasks of a type run for each value of a payload's member, until none is left."""
    client, until, samples = Client(), time.monotonic() + seconds, 0
    most: Counter[str] = Counter()
    left = True
    while left:
        if time.monotonic() > until:
            raise TimeoutError(f"tasks of {type_} are left after {seconds:g} s; at most {dict(most)}")
        # in this order: one that starts in between is seen to run
        waits = any(True for _ in tasks(client, type=type_, status="pending"))
        running = Counter(str(task["payload"][member]) for task in tasks(client, type=type_, status="processing"))
        most |= running
        left = waits or bool(running)
        samples += left
    return {"most": most, "samples": samples}


def race(body: Body, count: int) -> Body:
    """Submit the same task so many times, from several connections at once."""
    with ThreadPoolExecutor(RACERS) as racers:
        found = list(racers.map(lambda _: Client().ask("POST", "/api/v1/tasks", body), range(count)))
    return {
        "answers": Counter(str(status) for status, _ in found),
        "ids": sorted({int(answer["task_id"]) for _, answer in found if "task_id" in answer}),
    }


def request(method: str, path: str, body: Body) -> Body:
    """Ask until the answer is 2xx."""
    return Client().insist(method, path, body)


def statuses(ids: list[int]) -> Body:
    """What GET answers for each of these tasks."""
    client = Client()
    return {"statuses": [client.ask("GET", f"/api/v1/tasks/{each}")[0] for each in ids]}


COMMANDS = {
    each.__name__: each for each in (flow, audit, submit, wait_done, wait_ended, watch, race, request, statuses)
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](**json.loads(sys.argv[2]))))
