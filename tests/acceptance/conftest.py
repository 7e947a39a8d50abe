"""What these tests need beside the processes: known types, where `bobrai dev` keeps its data, and a real browser."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bobrai.settings import load
from bobrai.store.pool import Database as Pool
from tests.integration.api.conftest import announce
from tests.support import programs
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder

PHONE = (360, 740)
DESK = (1280, 800)
REBOUND_HOST = "evil.example"  # whose owner had it lead to the machine of who reads their page
ARGUMENTS = ("--no-proxy-server", f"--host-resolver-rules=MAP {REBOUND_HOST} 127.0.0.1")


@pytest.fixture
async def announced(database: Database, processes: Processes) -> Database:
    """The test's database with the types that the tests use; processes started from now on use it."""
    await announce_to(database)
    processes.environment["BOBRAI_DATABASE_URL"] = database.url
    return database


async def announce_to(database: Database) -> None:
    """Make the types known that the tests use."""
    pool = Pool(load(database={"url": database.url}).database)
    await pool.open()
    await announce(pool)
    await pool.close()


@pytest.fixture
def data_folder(processes: Processes, run_folder: RunFolder) -> Iterator[Path]:
    """Where `bobrai dev` keeps its data in this test: not below pytest's own folder, which is closed to other users.

    The embedded server runs as one when we are root.
    """
    folder = run_folder.folder(f"dev-{run_folder.free_port()}") / "data"
    processes.environment["BOBRAI_DATA_DIR"] = str(folder)
    yield folder
    processes.close()
    # a service that was killed, or a test that failed, leaves its database running
    postmaster = folder / "postgresql" / "postmaster.pid"
    if postmaster.exists():
        server = psutil.Process(int(postmaster.read_text().splitlines()[0]))
        server.send_signal(signal.SIGQUIT)
        eventually_sync(lambda: not is_alive(server), message="the embedded database has ended")


@pytest.fixture(scope="module")
def module_browser() -> Iterator[Browser]:
    """Chromium, Debian's or the user's own; for modules without async tests: its event loop runs in their thread."""
    try:
        program = programs.find("browser")
    except programs.ProgramMissing as missing:
        pytest.skip(str(missing))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def browser(module_browser: Browser) -> Iterator[Browser]:
    """The module's browser, in which this test's pages are closed afterwards, with all that they have stored."""
    yield module_browser
    for context in module_browser.contexts:
        context.close()


def opened(browser: Browser, url: str, size: tuple[int, int]) -> Page:
    """The page of a screen so large; what the browser complains about fails the test."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    assert complaints == []
    return page
