"""A real browser, for the pages that people see."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import programs

PHONE = (360, 740)
DESK = (1280, 800)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, Debian's or the user's own; for one test, because its event loop runs in the thread of the tests."""
    try:
        program = programs.find("browser")
    except programs.ProgramMissing as missing:
        pytest.skip(str(missing))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-proxy-server"])
        yield browser
        browser.close()


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
