"""`make test-cluster` that cannot begin says why in one line and has touched nothing."""

import os
import subprocess
import sys
from pathlib import Path

from tests.charts.helm_binary import REPOSITORY


def _run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(path)} | dict.fromkeys(("API_IMAGE", "WORKER_IMAGE", "VALUES", "KEEP"), "")
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", *arguments],
        capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment, timeout=50,
    )  # fmt: skip


def _kubectl(folder: Path, script: str) -> None:
    (folder / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "kubectl").chmod(0o755)


def test_without_kubectl(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "no kubectl on PATH" in line


def test_without_a_context(tmp_path: Path) -> None:
    _kubectl(tmp_path, "echo 'error: current-context is not set' >&2; exit 1")
    done = _run(tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "kubectl config use-context" in line


def test_with_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    _kubectl(
        tmp_path, '[ "$1 $2" = "config current-context" ] && echo far && exit; echo "dial tcp: refused" >&2; exit 1'
    )
    done = _run(tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the context far does not answer: dial tcp: refused" in line


def test_with_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = _run(tmp_path, "--values=absent.yaml")
    assert done.returncode == 2
    assert "no such file: absent.yaml" in done.stderr
