"""Fixtures for every test: real servers, fresh databases and virtual hosts, the product's processes, and faults.

What comes in is a fixture's name; what goes out is a thing of the test's own that is gone afterwards. The run's
servers start when a test first needs one and are stopped by `support/reaper.py` however the run ends.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

from tests.support.databases import Database
from tests.support.discovery import ServerMissing, allowed_missing
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.reaper import Reaper
from tests.support.run_folder import KEEP_VARIABLE, RunFolder, quickest_parent
from tests.support.servers import Servers
from tests.support.tcp_proxy import TcpProxy

RUN = pytest.StashKey[RunFolder]()
REAPER = pytest.StashKey[Reaper]()
PROCESSES = pytest.StashKey[Processes]()

# How long an example takes says how busy the machine is, and nothing of what a test promises.
settings.register_profile("bobrai", deadline=None)
settings.load_profile("bobrai")


# --- the run -----------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Make the run's folder in the controlling process; xdist workers find it in their environment."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # children inherit what nohup has set for us
    if hasattr(config, "workerinput"):
        config.stash[RUN] = RunFolder.current()
        return
    # the run starts a thousand processes of the same code: what one has compiled is there for the next
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    config.stash[RUN] = RunFolder.create(quickest_parent())
    config.stash[REAPER] = Reaper(config.stash[RUN])
    if config.getoption("dist", "no") in {"load", "worksteal"}:
        # tests that share the cluster go to one worker, instead of waiting for each other in several
        config.option.dist = "loadgroup"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop every server, also after Ctrl-C."""
    if (reaper := config.stash.get(REAPER, None)) and reaper.finish() != 0:
        raise pytest.UsageError("some servers of this test run could not be stopped")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of the shared cluster together."""
    for item in items:
        if "rabbitmq_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("rabbitmq_cluster"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say once and loudly what could not be had, and how long the servers took."""
    run = config.stash[RUN]
    for missing in sorted(run.path.glob("missing-*.txt")):
        allowed = missing.stem.removeprefix("missing-") in allowed_missing()
        title = "TESTS NOT RUN, AS ALLOWED" if allowed else "SERVER MISSING: ITS TESTS FAILED"
        terminalreporter.section(title, sep="!", red=True, bold=True)
        terminalreporter.line(missing.read_text())
    timings = run.path / "timings.txt"
    if timings.exists():
        terminalreporter.section("servers")
        terminalreporter.line(timings.read_text().rstrip())
    if os.environ.get(KEEP_VARIABLE):
        terminalreporter.line(f"kept: {run.path}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the product's processes beside the failure."""
    report = yield
    if report.failed:
        for node in item.listchain():
            if (processes := node.stash.get(PROCESSES, None)) is not None:
                report.sections.extend(processes.report())
    return report


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Turn a missing server into a failure, or into a skip where the caller explicitly allowed it."""
    try:
        return (yield)
    except ServerMissing as error:
        missing = error
    report_missing(request.config.stash[RUN], missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The same for a server that the test itself asked for, such as the pooler behind `database.pooled_url`."""
    try:
        return (yield)
    except ServerMissing as error:
        missing = error
    report_missing(item.config.stash[RUN], missing)


def report_missing(run: RunFolder, error: ServerMissing) -> NoReturn:
    """Note the missing server for the summary, and fail or, where allowed, skip this test."""
    (run.path / f"missing-{error.server}.txt").write_text(str(error))
    if error.server in allowed_missing():
        pytest.skip(f"{error.server} is missing, as allowed")
    pytest.fail(f"{error.server} is missing; see the end of the output", pytrace=False)


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config) -> RunFolder:
    """The run's folder: free ports, locks."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def servers(run_folder: RunFolder) -> Iterator[Servers]:
    """The run's servers."""
    servers = Servers(run_folder)
    yield servers
    servers.close()


@pytest.fixture
def free_port(run_folder: RunFolder) -> Callable[[], int]:
    """Gives a port that nothing else of this run gets."""
    return run_folder.free_port


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@pytest.fixture
def database(servers: Servers) -> Iterator[Database]:
    """A database of this test's own with the product's schema."""
    database = servers.databases().create()
    yield database
    servers.databases().drop(database)


@pytest.fixture(scope="module")
def module_database(servers: Servers) -> Iterator[Database]:
    """`database` for a whole module, whose tests do not mind what the others leave in it."""
    database = servers.databases().create()
    yield database
    servers.databases().drop(database)


@pytest.fixture
def empty_database(servers: Servers) -> Iterator[Database]:
    """A database of this test's own without a schema."""
    database = servers.databases().create(migrated=False)
    yield database
    servers.databases().drop(database)


@pytest.fixture
def private_postgres(run_folder: RunFolder, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A PostgreSQL server that this test may stop, kill and freeze; its databases are empty."""
    server = PostgresServer.create(run_folder, _private_name("postgres", run_folder))
    yield server
    server.dispose()


@pytest.fixture
def private_pgbouncer(run_folder: RunFolder, private_postgres: PostgresServer) -> Iterator[PgBouncerServer]:
    """A PgBouncer before `private_postgres` that this test may stop, kill and freeze."""
    server = PgBouncerServer.create(run_folder, _private_name("pgbouncer", run_folder), private_postgres.url())
    yield server
    server.dispose()


def _private_name(server: str, run: RunFolder) -> str:
    return f"private-{server}-{run.free_port()}"


# --- RabbitMQ ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rabbitmq(servers: Servers) -> Iterator[VirtualHost]:
    """A virtual host of this test's own on a single node."""
    host = servers.virtual_host()
    host.create()
    yield host
    host.delete()


@pytest.fixture
def rabbitmq_cluster(servers: Servers) -> Iterator[RabbitCluster]:
    """Three clustered nodes that this test may kill and start, with a virtual host of its own; one test at a time."""
    with servers.cluster() as cluster:
        cluster.create()
        yield cluster
        cluster.heal()
        cluster.delete()


# --- processes and faults ----------------------------------------------------------------------------------------


@pytest.fixture
def processes(run_folder: RunFolder, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Starts the product's commands; put what all of them need into `processes.environment`."""
    processes = Processes(run_folder, tmp_path)
    request.node.stash[PROCESSES] = processes
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def module_processes(
    run_folder: RunFolder, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Processes]:
    """`processes` for a whole module, whose tests change nothing about them; each start costs half a second of CPU."""
    processes = Processes(run_folder, tmp_path_factory.mktemp("processes"))
    request.node.stash[PROCESSES] = processes
    yield processes
    processes.close()


@pytest.fixture
def tcp_proxy(run_folder: RunFolder) -> Iterator[Callable[[str, int], TcpProxy]]:
    """Makes proxies before a host and port: `proxy = tcp_proxy(server.host, server.port)`."""
    proxies: list[TcpProxy] = []

    def make(host: str, port: int) -> TcpProxy:
        proxy = TcpProxy(host, port, run_folder.free_port())
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()
