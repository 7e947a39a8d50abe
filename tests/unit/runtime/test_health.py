"""The health port answers whatever a handlers' module has done to logging."""

import logging
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from bobrai.runtime.health import HealthServer


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit("no")


@pytest.fixture(params=["factory", "handler", "filter"])
def broken_logging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has ``logging`` raise for every line that uvicorn says."""

    def no(*_: Any, **__: Any) -> Any:
        raise SystemExit("no")

    uvicorn, factory = logging.getLogger("uvicorn.error"), logging.getLogRecordFactory()
    monkeypatch.setattr(uvicorn, "level", logging.DEBUG)
    uvicorn.manager._clear_cache()  # type: ignore[attr-defined]
    if request.param == "factory":
        logging.setLogRecordFactory(no)
    elif request.param == "handler":
        monkeypatch.setattr(logging.getLogger(), "handlers", [Broken()])
    else:
        monkeypatch.setattr(uvicorn, "filters", [no])
    yield
    logging.setLogRecordFactory(factory)
    uvicorn.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("broken_logging")
def test_a_server_answers_although_its_lines_cannot_be_said() -> None:
    server = HealthServer("127.0.0.1:0", "BOBRAI_WORKER_HEALTH_BIND", live=lambda: True, ready=dict)
    server.start()
    try:
        host, port = server._socket.getsockname()
        with urlopen(f"http://{host}:{port}/livez", timeout=5) as answer:
            assert answer.status == 200
    finally:
        server.stop()
