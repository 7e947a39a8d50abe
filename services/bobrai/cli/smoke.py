"""``bobrai smoke``: proves from outside that an installation takes tasks and finishes them.

In: the API's URL and a deadline. Out: one line per step, or SmokeFailed with the reason. Speaks HTTP with the standard
library alone, past any proxy of the environment, so that it runs in every image and tests just the way to the API.
"""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bobrai import tls
from bobrai.domain.errors import ConfigurationError

_REQUEST_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5
# The way to the API or something behind it is not up yet; the same request may succeed later.
_TRANSIENT = frozenset({429, 502, 503, 504})


class SmokeFailed(Exception):
    """The installation did not do what it promises; the message says what."""


@dataclass(frozen=True)
class _Step:
    type: str
    payload: Any
    result: Any


def client_context(authorities: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return how to speak HTTPS: whom to believe, else those that the system knows, and what to show.

    Raises ConfigurationError for files that cannot be used.
    """
    # As every other client of ours: Python 3.13's default refuses what authorities of one's own often lack.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities:
        tls.load_authorities(context, "--cacert", authorities)
    else:
        context.load_default_certs()
    if bool(certificate) != bool(key):
        raise ConfigurationError("--cert and --key go together")
    if certificate:
        tls.load_pair(context, ("--cert", "--key"), certificate, key)
    return context


def run(
    url: str,
    timeout_seconds: float,
    say: Callable[[str], None],
    context: ssl.SSLContext | None = None,
    *,
    credential: str = "",
) -> None:
    """Submit a task of each built-in type and see them done with the right result, all within the timeout.

    ``credential`` is shown to the API, unless it is empty.
    Raises SmokeFailed, and ConfigurationError for a credential that no header can hold.
    """
    if not (credential.isascii() and credential.isprintable()):
        raise ConfigurationError("the value of BOBRAI_API_KEY must consist of printable ASCII characters")
    mark = uuid.uuid4().hex
    steps = (
        _Step("echo", {"smoke": mark}, {"smoke": mark}),
        _Step("demo", "smoke test", "processed: smoke test (1sec)"),
    )
    client = _Client(url, timeout_seconds, say, context, credential)
    say(f"testing {client.base} within {timeout_seconds:g} s")
    began = time.monotonic()
    accepted = [(client.submit(step, f"smoke-{mark}-{step.type}"), step) for step in steps]
    for task_id, step in accepted:
        client.see_done(task_id, step)
    say(f"passed in {time.monotonic() - began:.1f} s")


class _Client:
    """Requests that are repeated while the other side is not up, until the one deadline of all."""

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        say: Callable[[str], None],
        context: ssl.SSLContext | None,
        credential: str,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SmokeFailed(f"{url!r} is not the URL of an API; write it as http://HOST:PORT")
        self.base = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._say = say
        self._headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        self._said = ""
        https = urllib.request.HTTPSHandler(context=context)
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), https).open

    def submit(self, step: _Step, key: str) -> int:
        """Submit one task, once however often the request must be repeated; returns its id."""
        body = json.dumps({"type": step.type, "payload": step.payload}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        doing = f"submitting a task of type {step.type}"
        answer = self._until_answered(doing, "/api/v1/tasks", body, headers)
        task_id = answer.get("task_id")
        if not isinstance(task_id, int):
            raise SmokeFailed(f"{doing}: the answer has no task_id: {_short(answer)}")
        self._say(f"{step.type}: accepted as task {task_id}")
        return task_id

    def see_done(self, task_id: int, step: _Step) -> None:
        """Wait until the task is done with the expected result."""
        began = time.monotonic()
        status = "unknown"
        while True:
            wait = max(0, min(_LONGEST_WAIT_SECONDS, int(self._left())))
            doing = f"{step.type}: task {task_id}, last seen {status}"
            task = self._until_answered(doing, f"/api/v1/tasks/{task_id}?wait={wait}")
            status = str(task.get("status"))
            if status == "done":
                break
            if status in {"failed", "cancelled"}:
                raise SmokeFailed(f"{step.type}: task {task_id} ended {status}: {_short(task.get('errors'))}")
            if self._left() <= 0:
                raise SmokeFailed(self._too_late(f"{step.type}: task {task_id} is still {status}", status))
            time.sleep(min(_PAUSE_SECONDS, self._left()) if wait == 0 else 0)
        if task.get("result") != step.result:
            raise SmokeFailed(
                f"{step.type}: task {task_id} has the result {_short(task.get('result'))}, not {_short(step.result)}"
            )
        self._say(f"{step.type}: task {task_id} done after {time.monotonic() - began:.1f} s, result as expected")

    def _too_late(self, what: str, status: str) -> str:
        hints = {
            "pending": "; is a dispatcher running, and a worker that consumes its queue?",
            "processing": "; a worker has it and has not finished it",
        }
        return f"{what} after {self._timeout_seconds:g} s{hints.get(status, '')}"

    def _until_answered(
        self, doing: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        while True:
            request = urllib.request.Request(self.base + path, body, {**self._headers, **(headers or {})})  # noqa: S310 - checked above
            try:
                with self._open(request, timeout=max(0.1, min(_REQUEST_SECONDS, self._left()))) as response:
                    answer = json.load(response)
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"HTTP {error.code}: {_short(error.read(1000).decode(errors='replace'))}"
                if error.code not in _TRANSIENT:
                    raise SmokeFailed(f"{doing}: {reason}") from error
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            except ValueError as error:
                raise SmokeFailed(f"{doing}: the answer is not JSON; is {self.base} the API?") from error
            else:
                if isinstance(answer, dict):
                    return answer
                raise SmokeFailed(f"{doing}: the answer is not an object: {_short(answer)}")
            if self._left() <= 0:
                raise SmokeFailed(f"{doing}: no good answer within {self._timeout_seconds:g} s; the last one: {reason}")
            if reason != self._said:
                self._said = reason
                self._say(f"{doing}: waiting ({reason})")
            time.sleep(min(_PAUSE_SECONDS, self._left()))

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"
