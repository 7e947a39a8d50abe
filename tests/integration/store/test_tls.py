"""A real PostgreSQL under TLS is believed by its certificate and host name alone, on every way to it."""

import asyncio
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.settings import DatabaseSettings, load
from bobrai.store import migrate
from bobrai.store.listener import Listener
from bobrai.store.pool import Database
from tests.support.certificates import Authority, Pair
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.run_folder import RunFolder

UNDER_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def postgres(run_folder: RunFolder) -> Iterator[PostgresServer]:
    """A server of this test's own that takes strangers only under TLS, once it is shown a certificate."""
    name = f"private-tls-{run_folder.free_port()}"
    server = PostgresServer.create(run_folder, name, build="postgresql-openssl")
    yield server
    server.dispose()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


async def serve(postgres: PostgresServer, pair: Pair, clients: Path | None = None) -> None:
    """Show the certificate, and wait until new connections see it."""
    await postgres.show(pair, clients)
    loop = asyncio.get_running_loop()

    async def shown() -> bool:
        text = await loop.run_in_executor(None, _certificate_of, postgres.port)
        return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()) == text

    await eventually(shown, message="PostgreSQL shows the certificate")


def _certificate_of(port: int) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest
        if plain.recv(1) != b"S":
            return None
        with context.wrap_socket(plain) as wrapped:
            return wrapped.getpeercert(binary_form=True)


def settings_of(postgres: PostgresServer, authority: Authority | None, shown: Pair | None = None) -> DatabaseSettings:
    files = {} if shown is None else {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key)}
    ca = "" if authority is None else str(authority.file)
    return load(database={"url": postgres.url(), "tls_ca": ca, "connect_timeout_seconds": 4.0, **files}).database


async def ask_pool(settings: DatabaseSettings) -> bool:
    database = Database(settings, pool_size=1)
    await database.open()
    try:
        return bool((await database.fetch(UNDER_TLS))[0]["ssl"])
    finally:
        await database.close()


async def ask_listener(settings: DatabaseSettings) -> bool:
    listener = Listener(settings.direct(), "news", timeout_seconds=5)
    await listener.open(lambda: None, lambda: None)
    try:
        await listener.check()
        assert listener._connection is not None
        return bool(await listener._connection.fetchval(UNDER_TLS))
    finally:
        listener.close()


async def ask_migration(settings: DatabaseSettings) -> bool:
    await migrate.migrate(settings.direct())
    await migrate.check(settings.direct())
    return True


WAYS = [ask_pool, ask_listener, ask_migration]
Way = Callable[[DatabaseSettings], Awaitable[bool]]


@pytest.mark.parametrize("way", WAYS)
async def test_the_right_certificate_is_believed_on_every_way(
    postgres: PostgresServer, authority: Authority, way: Way
) -> None:
    await serve(postgres, authority.server())
    assert await way(settings_of(postgres, authority))


@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_certificate_is_refused_on_every_way_with_its_reason(
    postgres: PostgresServer, authority: Authority, stranger: Authority, way: Way
) -> None:
    for pair, reason in (
        (authority.server("elsewhere.example"), "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (authority.server(ends_in=-timedelta(hours=1)), "certificate has expired"),
        (stranger.server(), "its authority is unknown"),
    ):
        await serve(postgres, pair)
        with pytest.raises(DatabaseUnavailable, match=f"the server's certificate is not accepted: {reason}"):
            await way(settings_of(postgres, authority))


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_without_tls_is_refused_on_every_way(
    postgres: PostgresServer, authority: Authority, way: Way
) -> None:
    with pytest.raises(DatabaseUnavailable, match="rejected SSL upgrade"):
        await way(settings_of(postgres, authority))
    assert await ask_migration(settings_of(postgres, None))


async def test_a_dsn_may_say_that_its_own_server_has_no_tls(postgres: PostgresServer, authority: Authority) -> None:
    plain = load(database={"url": f"{postgres.url()}?sslmode=disable", "tls_ca": str(authority.file)}).database
    assert await ask_pool(plain) is False
    weak = load(database={"url": f"{postgres.url()}?sslmode=prefer", "tls_ca": str(authority.file)}).database
    with pytest.raises(DatabaseUnavailable, match="rejected SSL upgrade"):
        await ask_pool(weak)


async def test_a_client_certificate_is_shown_where_the_server_asks_for_one(
    postgres: PostgresServer, authority: Authority, stranger: Authority
) -> None:
    connection = await asyncpg.connect(postgres.url())
    rules = Path(await connection.fetchval("SHOW hba_file"))
    rules.write_text("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\nhostnossl all all 127.0.0.1/32 trust\n")
    await connection.close()
    await serve(postgres, authority.server(), authority.file)
    assert await ask_pool(settings_of(postgres, authority, authority.client("bobrai")))
    for shown in (None, stranger.client("bobrai")):
        with pytest.raises(DatabaseUnavailable):
            await ask_pool(settings_of(postgres, authority, shown))


async def test_a_pool_believes_a_new_authority_from_the_next_connection_on(
    postgres: PostgresServer, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    await serve(postgres, stranger.server())
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.file.read_bytes())
    database = Database(load(database={"url": postgres.url(), "tls_ca": str(ca)}).database, pool_size=1)
    await database.open()
    with pytest.raises(DatabaseUnavailable, match="not accepted"):
        await database.ping()
    ca.write_bytes(stranger.file.read_bytes())
    await database.ping()
    await database.close()


async def test_a_process_says_why_it_does_not_believe_its_database(
    postgres: PostgresServer, authority: Authority, stranger: Authority, processes: Processes
) -> None:
    await serve(postgres, authority.server())
    environment = {"BOBRAI_DATABASE_URL": postgres.url(), "BOBRAI_DATABASE_TLS_CA": str(authority.file)}
    migrated = processes.run([sys.executable, "-m", "bobrai", "migrate"], name="migrate", environment=environment)
    assert await migrated.exited() == 0
    processes.start("api", environment=environment)
    wrong = {**environment, "BOBRAI_DATABASE_TLS_CA": str(stranger.file)}
    for command, event in (("api", "loop.failed"), ("dispatcher", "loop.failed"), ("migrate", "database.awaited")):
        more = {"BOBRAI_RABBITMQ_URL": "amqp://127.0.0.1:1"} if command == "dispatcher" else {}
        process = processes.start(command, environment={**wrong, **more}, wait_ready=False)
        lines = await eventually(lambda p=process, e=event: [line for line in p.log_events() if line["event"] == e])
        assert "certificate is not accepted" in lines[0]["error"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"CA": "/absent"}, "BOBRAI_DATABASE_TLS_CA: /absent cannot be read: No such file"),
        ({"CA": __file__}, "BOBRAI_DATABASE_TLS_CA: .* must hold certificates in PEM"),
        ({"KEY": "/key"}, "BOBRAI_DATABASE_TLS_CERTIFICATE: must be set too, because BOBRAI_DATABASE_TLS_KEY is"),
        ({"KEY": "/key", "CERTIFICATE": "/c"}, "BOBRAI_DATABASE_TLS_CA: must be set too"),
    ],
)
async def test_wrong_files_end_a_process_with_the_variable(
    processes: Processes, settings: dict[str, str], words: str
) -> None:
    environment = {f"BOBRAI_DATABASE_TLS_{name}": value for name, value in settings.items()}
    environment["BOBRAI_DATABASE_URL"] = "postgresql://127.0.0.1:1/tasks"
    process = processes.start("migrate", environment=environment)
    assert await process.exited() == 2
    assert re.fullmatch(f"bobrai: {words}.*", process.log_text().strip()), process.log_text()
