"""On what, of what, and how: the facts that make a figure comparable."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.bench.servers import Servers

PACKAGES = ("bobrai", "starlette", "uvicorn", "uvloop", "httptools", "asyncpg", "aio-pika", "msgspec", "pydantic")
REPOSITORY = Path(__file__).parents[2]


def describe(servers: Servers, arguments: list[str]) -> dict[str, Any]:
    """Machine, versions, commit and command."""
    return {
        "command": shlex.join(["python", "-m", "tests.bench", *arguments]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "kernel": platform.release(),
            "load_before": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            "postgresql": servers.postgres.version,
            "rabbitmq": servers.rabbitmq.version,
            **{package: version(package) for package in PACKAGES},
        },
        "interpreter": sys.executable,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()
