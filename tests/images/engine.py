"""The Docker engine as it is found: builds, looks into images, runs containers the way a hardened pod does.

The engine is the one that `docker` reaches (DOCKER_HOST, the current context). Containers share this machine's network,
so that they reach the test's servers, and run with a read-only root, without privileges. Nothing is skipped: where no
engine answers, the tests fail and say so.
"""

import io
import json
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.eventually import eventually_sync

REPOSITORY = Path(__file__).parents[2]
BUILD_SECONDS = 1200.0
COMMAND_SECONDS = 120.0
# what the restricted Pod Security profile and the chart ask of a container
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host")


class EngineMissing(Exception):
    """No Docker engine answers."""


def docker(*arguments: str, timeout: float = COMMAND_SECONDS, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the Docker client; a failure is reported with all that it printed."""
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if check and result.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)} ended with {result.returncode}:\n{tail(result)}")
    return result


def tail(result: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command printed."""
    return f"{result.stdout}\n{result.stderr}"[-6000:]


def find_engine() -> str:
    """The engine's version; raises EngineMissing."""
    if not shutil.which("docker"):
        raise EngineMissing("there is no `docker` on PATH; install Docker, or leave the image tests out")
    answer = docker("version", "--format", "{{.Server.Version}}", check=False)
    if answer.returncode != 0:
        raise EngineMissing(f"no Docker engine answers; start one or set DOCKER_HOST\n{answer.stderr.strip()}")
    return answer.stdout.strip()


class Image:
    """An image in the engine."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    @classmethod
    def build(
        cls,
        reference: str,
        dockerfile: str,
        context: Path = REPOSITORY,
        *,
        target: str = "",
        arguments: Mapping[str, str] | None = None,
    ) -> Self:
        """Build from a Dockerfile in the context and name the result."""
        options = ["--network", "host", "-f", str(context / dockerfile), "-t", reference]
        if target:
            options += ["--target", target]
        for name, value in (arguments or {}).items():
            options += ["--build-arg", f"{name}={value}"]
        docker("build", *options, str(context), timeout=BUILD_SECONDS)
        return cls(reference)

    @classmethod
    def with_handlers(cls, reference: str, worker: "Image", module: str, text: str, folder: Path) -> Self:
        """Build what a user builds: the worker's image with a module of handlers, made in the given empty folder."""
        (folder / f"{module}.py").write_text(text)
        (folder / "Dockerfile").write_text(
            f"FROM {worker.reference}\nCOPY {module}.py /app/\nENV BOBRAI_HANDLERS={module}\n"
        )
        return cls.build(reference, "Dockerfile", folder)

    def inspect(self) -> dict[str, Any]:
        """What the engine knows of it."""
        found: list[dict[str, Any]] = json.loads(docker("image", "inspect", self.reference).stdout)
        return found[0]

    def layers(self) -> list[str]:
        """Digests of its file system's layers, base first."""
        return list(self.inspect()["RootFS"]["Layers"])

    def remove(self) -> None:
        """Take the name away; the engine keeps the layers that others use."""
        docker("image", "rm", "--force", self.reference, check=False)

    def python(self, code: str, *arguments: str) -> Any:
        """What a program prints as JSON, run by the image's own interpreter."""
        command = ("--rm", *HARDENED, "--entrypoint", "python", self.reference, "-c", code, *arguments)
        result = docker("run", *command, check=False)
        assert result.returncode == 0, tail(result)
        return json.loads(result.stdout)

    def shell(self, script: str) -> str:
        """What a shell script prints, run as root to see everything."""
        command = ("--rm", *HARDENED, "--user", "0", "--entrypoint", "sh", self.reference, "-c", script)
        return docker("run", *command).stdout


class Container:
    """A running container of a test."""

    def __init__(self, identity: str, port: int | None) -> None:
        self.identity = identity
        self.port = port

    @property
    def url(self) -> str:
        """Where its HTTP port answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether its first process has not ended."""
        return docker("inspect", "--format", "{{.State.Running}}", self.identity).stdout.strip() == "true"

    def get(self, path: str, *, timeout: float = 5.0) -> tuple[int, bytes]:
        """One GET to its port: status and body; raises OSError when it does not answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_for(self, path: str, seconds: float = 30.0) -> Self:
        """Wait until a path answers 200; a container that ends instead is reported with its log."""

        def answers() -> bool:
            try:
                return self.get(path)[0] == 200
            except OSError:
                return False

        eventually_sync(lambda: answers() or not self.is_running, seconds, message=f"{path} answers")
        assert self.is_running, f"ended while it started:\n{self.logs()}"
        return self

    def logs(self) -> str:
        """All it printed."""
        result = docker("logs", self.identity)
        return result.stdout + result.stderr

    def signal(self, name: str) -> None:
        """Send its first process a signal."""
        docker("kill", "--signal", name, self.identity)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait until it has ended and return its exit code."""
        try:
            return int(docker("wait", self.identity, timeout=seconds).stdout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"has not ended within {seconds:g} s:\n{self.logs()}") from error

    def execute(self, *command: str) -> str:
        """Run a command inside and return what it printed."""
        return docker("exec", self.identity, *command).stdout

    def put(self, path: str, content: str) -> None:
        """Write a file the way skaffold does: a tar is unpacked by the container's own user."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(path)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
        command = ["docker", "exec", "-i", self.identity, "tar", "xmf", "-", "-C", "/", "--no-same-owner"]
        result = subprocess.run(command, input=archive.getvalue(), capture_output=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr.decode()

    def remove(self) -> None:
        """End it and forget it."""
        docker("rm", "--force", "--volumes", self.identity, check=False)


class Containers:
    """Starts containers for one test and ends all of them."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        """Given to every container started from now on."""
        self.all: list[Container] = []

    def start(
        self,
        image: Image,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        port: int | None = None,
    ) -> Container:
        """Start a container as a hardened pod would, with the image's own entrypoint."""
        variables = {**self.environment, **(environment or {})}
        settings = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
        started = docker("run", "--detach", *HARDENED, *settings, *options, image.reference, *arguments)
        container = Container(started.stdout.strip(), port)
        self.all.append(container)
        return container

    def run(self, image: Image, *arguments: str, seconds: float = 60.0, **options: Any) -> tuple[int, str]:
        """Start one that ends by itself; its exit code and log."""
        container = self.start(image, *arguments, **options)
        return container.wait(seconds), container.logs()

    def close(self) -> None:
        """End all of them."""
        for container in reversed(self.all):
            container.remove()

    def report(self) -> list[tuple[str, str]]:
        """A title and the log's end for each container, to be shown when a test failed."""
        return [(f"log of container {each.identity[:12]}", each.logs()[-4000:]) for each in self.all]
