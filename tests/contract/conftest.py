"""Contract tests run on the event loop of the product's processes."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the one loop that each test runs on."""
    return {"uvloop": uvloop.new_event_loop}
