"""The page at /docs in a real browser, on a phone and on a desk, and what it makes of hostile requests."""

import socket

import pytest
from playwright.sync_api import Browser

from tests.acceptance.conftest import DESK, PHONE, opened
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes

# one group, because one API and one browser serve all of them
pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("docs_page")]


@pytest.fixture(scope="module")
def api(module_database: Database, module_processes: Processes) -> Process:
    """An API, which these tests only read."""
    module_processes.environment["BOBRAI_DATABASE_URL"] = module_database.url
    return module_processes.start("api")


@pytest.fixture(scope="module")
def any_host(module_database: Database, module_processes: Processes) -> Process:
    """The same under every name."""
    environment = {"BOBRAI_DATABASE_URL": module_database.url, "BOBRAI_AUTH_ANONYMOUS_HOSTS": "*"}
    return module_processes.start("api", environment=environment)


def test_on_a_phone_the_page_is_as_wide_as_the_screen(api: Process, browser: Browser) -> None:
    page = opened(browser, f"{api.url}/docs", PHONE)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE[0]
    wide = "[...document.querySelectorAll('pre, .scroll')].filter(each => each.scrollWidth > each.clientWidth).length"
    assert page.evaluate(wide) > 0  # what is wider scrolls in itself


def test_on_a_phone_the_index_is_closed_and_the_first_line_to_copy_is_on_the_screen(
    api: Process, browser: Browser
) -> None:
    page = opened(browser, f"{api.url}/docs", PHONE)
    index = page.locator("details.above")
    assert index.get_attribute("open") is None
    assert page.locator("nav.beside").is_hidden()
    place = page.locator("#start").bounding_box()
    assert place is not None
    assert place["y"] < PHONE[1]
    page.locator("details.above summary").click()
    page.locator("details.above").get_by_text("Cancel a task", exact=True).click()
    assert page.url.endswith("#cancelTask")
    seen = "Math.abs(document.getElementById('cancelTask').getBoundingClientRect().top) < innerHeight"
    eventually_sync(lambda: page.evaluate(seen), message="the heading is on the screen")


def test_on_a_desk_the_index_stands_beside_the_text(api: Process, browser: Browser) -> None:
    page = opened(browser, f"{api.url}/docs", DESK)
    assert page.locator("details.above").is_hidden()
    assert page.locator("nav.beside").get_by_text("Cancel a task", exact=True).is_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= DESK[0]


def test_tasks_come_in_the_order_in_which_one_uses_them_and_other_paths_once(api: Process, browser: Browser) -> None:
    page = opened(browser, f"{api.url}/docs", DESK)
    titles = page.locator("h3").evaluate_all("all => all.map(each => each.id)")
    assert titles[:6] == ["submitTask", "submitTasks", "readTask", "listTasks", "cancelTask", "replayTask"]
    assert not [title for title in titles if title.endswith("AtFirstPath")]
    text = page.locator("main").inner_text()
    assert text.count("POST /tasks") == 1
    assert text.count("GET /tasks/{task_id}") == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_lines_to_copy_name_the_address_that_the_browser_used(api: Process, browser: Browser, host: str) -> None:
    page = opened(browser, f"http://{host}:{api.port}/", DESK)
    assert page.url == f"http://{host}:{api.port}/docs"  # / leads there
    lines = [each for each in page.locator("pre").all_inner_texts() if "curl" in each]
    assert lines
    assert all(f"http://{host}:{api.port}/" in line for line in lines)
    page.get_by_role("link", name="OpenAPI 3.1").click()
    assert page.url == f"http://{host}:{api.port}/api/openapi.json"


@pytest.mark.parametrize(
    "host",
    [
        "<script>alert(1)</script>",
        "a'; rm -rf ~; '",
        'x" onload="y',
        "a b",
        "$(id)",
        "a&b",
        "x" * 300,
        "[::1",
        "a:999999",
        "",
    ],
)
def test_a_host_that_is_none_is_shown_nowhere(any_host: Process, host: str) -> None:
    api = any_host
    with socket.create_connection(("127.0.0.1", api.port or 0), timeout=10) as connection:
        connection.sendall(f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 200")
    assert f"curl -X POST http://127.0.0.1:{api.port}/api/v1/tasks" in answer
    assert not host or host not in answer
    assert "{{address}}" not in answer
    policy = next(line for line in answer.splitlines() if line.startswith("content-security-policy:"))
    assert "default-src 'none'" in policy
    assert "script" not in policy
