"""A page of another origin in a real browser: it may use the API where it is let in, and nowhere else, open or not."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from bobrai.access import issuing
from bobrai.domain.access import Grant
from bobrai.settings import load
from bobrai.store.pool import Database as Pool
from tests.acceptance.conftest import REBOUND_HOST
from tests.integration.api.conftest import announce
from tests.support.authors import SOMEBODY
from tests.support.databases import Database
from tests.support.processes import Process, Processes

pytestmark = pytest.mark.timeout(120)

UNAUTHORIZED = "urn:bobrai:problem:unauthorized"

# What a page does: submits with a key and its own id, reads back with the ETag, and is refused without its key.
SCRIPT = """
async ([url, key]) => {
  const sent = {'Authorization': `Bearer ${key}`, 'Content-Type': 'application/json', 'X-Request-ID': 'from-a-page'};
  try {
    const made = await fetch(`${url}/api/v1/tasks`, {
      method: 'POST', headers: {...sent, 'Idempotency-Key': 'k1'}, body: JSON.stringify({type: 'echo', payload: 'x'}),
    });
    const location = made.headers.get('Location');
    const read = await fetch(url + location, {headers: sent});
    const again = await fetch(url + location, {headers: {...sent, 'If-None-Match': read.headers.get('ETag')}});
    const refused = await fetch(url + location);
    const paused = await fetch(`${url}/api/v1/queues/mail`, {
      method: 'PATCH', headers: sent, body: JSON.stringify({paused: true}),
    });
    return {
      made: made.status, id: made.headers.get('X-Request-ID'), payload: (await read.json()).payload,
      again: again.status, refused: refused.status, why: (await refused.json()).type, paused: paused.status,
    };
  } catch (error) { return `${error.name}`; }
}
"""


class _Blank(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is there called
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of a page that is not the API's."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def key(module_database: Database) -> str:
    """The key that the page shows."""
    return asyncio.run(_made(module_database.url))


async def _made(url: str) -> str:
    pool = Pool(load(database={"url": url}).database)
    await pool.open()
    await announce(pool)
    grant = Grant.of(["tasks:submit", "tasks:read", "tasks:payload", "queues:control"])
    made = await issuing.create(pool, "page", grant, by=SOMEBODY)
    await pool.close()
    return made.secret


def asked(browser: Browser, origin: str, api: Process, key: str) -> Any:
    """What a page of this origin gets out of the API."""
    page = browser.new_page()
    page.goto(origin)
    assert page.evaluate("origin") == origin
    return page.evaluate(SCRIPT, [api.url, key])


def test_a_page_uses_the_api_where_its_origin_is_named_and_gets_nothing_elsewhere(
    key: str, module_database: Database, processes: Processes, browser: Browser, elsewhere: str
) -> None:
    closed = {"BOBRAI_DATABASE_URL": module_database.url, "BOBRAI_AUTH_ANONYMOUS_SCOPES": "none"}

    def started(origins: str) -> Process:
        return processes.start("api", environment={**closed, "BOBRAI_API_CORS_ORIGINS": origins})

    used = {"made": 201, "id": "from-a-page", "payload": "x", "again": 304, "refused": 401, "why": UNAUTHORIZED}
    assert asked(browser, elsewhere, started(f"https://app.example.org,{elsewhere}"), key) == {**used, "paused": 404}
    assert asked(browser, elsewhere, started("*"), key) == {**used, "paused": 404}
    for origins in ("", "https://app.example.org", elsewhere.replace("127.0.0.1", "localhost")):
        assert asked(browser, elsewhere, started(origins), key) == "TypeError", origins


# Requests that a browser sends without asking first: no body, or one that any form could have.
BLIND = """
async (url) => {
  for (const path of ['/api/v1/tasks/1/cancel', '/api/v1/tasks/1/replay']) {
    await fetch(url + path, {method: 'POST', mode: 'no-cors'});
  }
  await fetch(`${url}/api/v1/tasks`, {method: 'POST', mode: 'no-cors', body: '{"type":"echo","payload":1}'});
}
"""
# What a page does that is served, as its browser believes, by the API itself.
REBOUND = """
async () => {
  const read = await fetch('/api/v1/tasks');
  const made = await fetch('/api/v1/keys', {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"name":"mine","scopes":["admin"]}',
  });
  return [read.status, made.status];
}
"""


def test_an_open_service_on_this_machine_does_nothing_for_a_page_from_elsewhere(
    key: str, module_database: Database, processes: Processes, browser: Browser, elsewhere: str
) -> None:
    assert key  # the types are known
    api = processes.start("api", environment={"BOBRAI_DATABASE_URL": module_database.url})
    page = browser.new_page()
    page.goto(elsewhere)
    page.evaluate(BLIND, api.url)
    asked = [each for each in api.log_events() if each["event"] == "http.request" and each["method"] == "POST"]
    assert [each["status"] for each in asked] == [403, 403, 403]
    page = browser.new_page()
    for host, statuses in ((REBOUND_HOST, [403, 403]), ("localhost", [200, 201])):
        shown = page.goto(f"http://{host}:{api.port}/health")
        assert shown is not None
        assert shown.status == 200
        assert page.evaluate(REBOUND) == statuses
