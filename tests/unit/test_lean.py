"""What a process of the service does not load, though it is installed for the command line."""

import importlib.util
import subprocess
import sys

from bobrai import lean

SERVERS = """
import sys
import bobrai.access.key_reader, bobrai.api.main, bobrai.dispatcher.main, bobrai.external_metrics.main
import bobrai.telemetry.tracing, bobrai.worker.main
assert "structlog" in sys.modules and "httpx" in sys.modules
print(*{name.partition(".")[0] for name in sys.modules} & {"rich", "pygments", "markdown_it"})
import rich.table  # is there for handlers
"""


def test_no_server_loads_what_draws_on_terminals_and_handlers_may() -> None:
    assert importlib.util.find_spec("rich")
    done = subprocess.run([sys.executable, "-c", SERVERS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\n"


def test_what_is_loaded_already_stays() -> None:
    with lean.without("json"):
        import json

    assert sys.modules["json"] is json
