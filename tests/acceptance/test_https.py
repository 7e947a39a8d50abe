"""The API's own TLS, on real processes: what is shown, replaced and asked for, and what strangers may send."""

import asyncio
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import Authority, Pair, key_in_pem
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes

TASK = {"type": "echo", "payload": "x"}
QUEUES = "/api/v1/queues"
PROBLEM = "urn:bobrai:problem:client-certificate-required"


class Mounted:
    """A Secret as the kubelet mounts it: names that lead through a link, which is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._versions = 0

    def path(self, name: str) -> str:
        return str(self._folder / name)

    def write(self, **files: Path) -> None:
        self._versions += 1
        version = self._folder / f"..{self._versions}"
        version.mkdir()
        for name, source in files.items():
            shutil.copy(source, version / name)
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self._folder / "..data")

    def write_pair(self, pair: Pair, **more: Path) -> None:
        self.write(crt=pair.certificate, key=pair.key, **more)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


@pytest.fixture
def mounted(tmp_path: Path, authority: Authority) -> Mounted:
    mounted = Mounted(tmp_path / "mounted")
    mounted.write_pair(authority.server(), ca=authority.file)
    return mounted


@pytest.fixture
def start(announced: Database, processes: Processes, mounted: Mounted) -> Callable[..., Process]:
    """Starts an API with the mounted certificate, without waiting for it."""

    def make(**settings: str) -> Process:
        tls = {"CERTIFICATE": mounted.path("crt"), "KEY": mounted.path("key"), "REFRESH_SECONDS": "0.05", **settings}
        environment = {f"BOBRAI_API_TLS_{name}": value for name, value in tls.items()}
        return processes.start("api", environment=environment, wait_ready=False)

    return make


@asynccontextmanager
async def client_of(
    process: Process, trusted: Authority, shown: Pair | None = None, *, version: ssl.TLSVersion | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with connections of its own, once the port is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted.file)
    if version is not None:
        context.maximum_version = version
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    await eventually(lambda: _listens(process), 20, message="the API listens")
    base = f"https://127.0.0.1:{process.port}"
    async with httpx.AsyncClient(base_url=base, verify=context, trust_env=False, timeout=10) as client:
        yield client


def _listens(process: Process) -> bool:
    assert process.is_running(), process.log_tail()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", process.port)) == 0


async def answer_of(process: Process, trusted: Authority, shown: Pair | None = None, path: str = QUEUES) -> int | str:
    """What a new connection gets: a status, or why there is none."""
    async with client_of(process, trusted, shown) as client:
        try:
            return (await client.get(path)).status_code
        except httpx.TransportError as error:
            return str(error)


def events(process: Process, name: str) -> list[dict[str, object]]:
    return [each for each in process.log_events() if each["event"] == name]


async def test_tasks_are_taken_over_tls_and_links_say_so(start: Callable[..., Process], authority: Authority) -> None:
    api = start()
    async with client_of(api, authority) as client:
        made = await client.post("/api/v1/tasks", json=TASK)
        assert made.status_code == 201
        assert made.headers["location"].startswith(("/", "https://"))
        assert (await client.get("/readyz")).status_code == 200
        figures = (await client.get("/metrics")).text
    assert "bobrai_certificate_expiry_timestamp_seconds 1." in figures
    async with client_of(api, authority, version=ssl.TLSVersion.TLSv1_2) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_a_client_refuses_another_authority_host_or_time(
    start: Callable[..., Process], mounted: Mounted, authority: Authority, stranger: Authority
) -> None:
    api = start()
    assert "certificate verify failed" in str(await answer_of(api, stranger))
    mounted.write_pair(authority.server("elsewhere.example"))
    await eventually(lambda: len(events(api, "certificate.changed")) == 1)
    assert "not valid for '127.0.0.1'" in str(await answer_of(api, authority))
    mounted.write_pair(authority.server(ends_in=-timedelta(hours=1)))
    await eventually(lambda: len(events(api, "certificate.changed")) == 2)
    assert "expired" in str(await answer_of(api, authority))


async def test_a_new_certificate_is_shown_without_dropping_connections(
    start: Callable[..., Process], mounted: Mounted, authority: Authority, stranger: Authority
) -> None:
    api = start()
    async with client_of(api, authority) as old:
        assert (await old.get("/livez")).status_code == 200
        mounted.write_pair(stranger.server())
        await eventually(lambda: answered(api, stranger, 200))
        assert (await old.get("/livez")).status_code == 200  # on the connection that it has: another one would fail
    assert "certificate verify failed" in str(await answer_of(api, authority))


async def answered(process: Process, trusted: Authority, status: int) -> bool:
    return await answer_of(process, trusted, path="/livez") == status


async def test_a_broken_pair_changes_nothing_and_is_said_once(
    start: Callable[..., Process], mounted: Mounted, authority: Authority, stranger: Authority
) -> None:
    api = start()
    assert await answered(api, authority, 200)
    mounted.write(crt=stranger.server().certificate, key=authority.server().key)
    await eventually(lambda: events(api, "certificate.refused"))
    mounted.write_pair(authority.server())
    await eventually(lambda: events(api, "certificate.changed"))
    assert await answered(api, authority, 200)
    [refused] = events(api, "certificate.refused")
    assert "BOBRAI_API_TLS_KEY" in str(refused["error"])


async def test_a_required_client_certificate_opens_all_paths_and_its_lack_only_the_probes(
    start: Callable[..., Process], mounted: Mounted, authority: Authority
) -> None:
    api = start(CLIENT_CA=mounted.path("ca"))
    shown = authority.client("shop")
    assert [await answer_of(api, authority, shown, path) for path in ("/livez", "/readyz", QUEUES)] == [200, 200, 200]
    async with client_of(api, authority) as client:
        for path in ("/livez", "/readyz"):
            assert (await client.get(path)).status_code == 200
        for path in ("/tasks", "/metrics", "/docs", "/livez/", "/readyz/../tasks", "//livez", "/nothing"):
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["type"]) == (403, PROBLEM), path
        assert (await client.post("/api/v1/tasks", json=TASK)).status_code == 403


@pytest.mark.parametrize("wish", ["required", "optional"])
async def test_a_wrong_client_certificate_is_refused_even_where_none_is_needed(
    start: Callable[..., Process], mounted: Mounted, authority: Authority, stranger: Authority, wish: str
) -> None:
    api = start(CLIENT_CA=mounted.path("ca"), CLIENT_CERTIFICATES=wish)
    assert await answer_of(api, authority) == (200 if wish == "optional" else 403)
    for wrong in (stranger.client("shop"), authority.client("late", ends_in=-timedelta(hours=1)), authority.server()):
        assert isinstance(await answer_of(api, authority, wrong, "/livez"), str)


async def test_a_client_whose_authority_is_taken_away_is_refused_on_every_connection(
    start: Callable[..., Process], mounted: Mounted, authority: Authority, stranger: Authority
) -> None:
    api = start(CLIENT_CA=mounted.path("ca"))
    shown = authority.client("shop")
    async with client_of(api, authority, shown) as client:
        assert (await client.get(QUEUES)).status_code == 200
        mounted.write_pair(authority.server(), ca=stranger.file)
        await eventually(lambda: events(api, "certificate.changed"))
        with pytest.raises(httpx.TransportError):  # noqa: PT012 - the goodbye may come before or within the next request
            while True:
                await client.get(QUEUES)
    assert isinstance(await answer_of(api, authority, shown), str)
    assert await answer_of(api, authority, stranger.client("shop")) == 200


async def test_who_speaks_no_tls_or_nothing_keeps_nobody_out_and_is_let_go(
    announced: Database, start: Callable[..., Process], processes: Processes, authority: Authority
) -> None:
    processes.environment["BOBRAI_API_MAX_CONNECTIONS"] = "20"
    api = start()
    assert await answered(api, authority, 200)
    silent = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(60)]
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        assert b"HTTP" not in await until_closed(reader)
    assert await answered(api, authority, 200)
    async with asyncio.timeout(20):  # the last ones have the ten seconds of a head
        for quiet, _ in silent:
            assert await until_closed(quiet) == b""
    for _, opened in (*silent, (reader, writer)):
        opened.close()
    assert [each["event"] for each in api.log_events() if each["level"] in {"warning", "error"}] == []


async def test_one_address_has_as_many_connections_as_may_also_under_tls(
    start: Callable[..., Process], processes: Processes, authority: Authority
) -> None:
    processes.environment["BOBRAI_API_MAX_CONNECTIONS_PER_ADDRESS"] = "2"
    api = start()
    async with client_of(api, authority) as one, client_of(api, authority) as two:
        assert [(await each.get("/livez")).status_code for each in (one, two, one, two)] == [200] * 4
        assert isinstance(await answer_of(api, authority, path="/livez"), str)
    await eventually(lambda: answered(api, authority, 200), message="they have left their places")


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_an_answer_reaches_a_client_that_still_sends(start: Callable[..., Process], authority: Authority) -> None:
    api = start()
    async with client_of(api, authority) as client:
        large = await client.post(
            "/api/v1/tasks", content=b" " * (30 * 1024 * 1024), headers={"content-type": "application/json"}
        )
    assert large.status_code == 413


async def test_the_smoke_test_speaks_https_and_shows_a_certificate(
    start: Callable[..., Process], processes: Processes, mounted: Mounted, authority: Authority, stranger: Authority
) -> None:
    api = start(CLIENT_CA=mounted.path("ca"))
    assert await answered(api, authority, 200)
    shown = authority.client("smoke")
    url, pair = f"https://localhost:{api.port}", [f"--cert={shown.certificate}", f"--key={shown.key}"]

    async def said(*arguments: str) -> str:
        smoke = processes.start("smoke", url, "--timeout=2", *arguments)
        assert await smoke.exited() == 1
        return smoke.log_text()

    assert "echo: accepted as task 1" in await said(f"--cacert={authority.file}", *pair)  # and nobody runs it
    assert "HTTP 403" in await said(f"--cacert={authority.file}")
    assert "certificate verify failed" in await said(f"--cacert={stranger.file}", *pair)


async def test_the_process_ends_politely_with_connections_and_handshakes_open(
    start: Callable[..., Process], authority: Authority
) -> None:
    api = start()
    async with client_of(api, authority) as client:
        assert (await client.get("/livez")).status_code == 200
        _, opened = await asyncio.open_connection("127.0.0.1", api.port)
        api.terminate()
        assert await api.exited(8) == 0  # before the time of a drain is over
        opened.close()


def _missing(mounted: Mounted) -> dict[str, str]:
    return {"CERTIFICATE": mounted.path("absent")}


def _folder(mounted: Mounted) -> dict[str, str]:
    return {"KEY": os.path.dirname(mounted.path("x"))}  # noqa: PTH120


def _no_key(_: Mounted) -> dict[str, str]:
    return {"KEY": ""}


def _no_pair(mounted: Mounted) -> dict[str, str]:
    return {"CERTIFICATE": "", "KEY": "", "CLIENT_CA": mounted.path("ca")}


def _no_pem(mounted: Mounted) -> dict[str, str]:
    Path(mounted.path("text")).write_text("no certificate")
    return {"CLIENT_CA": mounted.path("text")}


def _encrypted(mounted: Mounted) -> dict[str, str]:
    Path(mounted.path("locked")).write_bytes(key_in_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    return {"KEY": mounted.path("locked")}


def _other(mounted: Mounted) -> dict[str, str]:
    Path(mounted.path("other")).write_bytes(key_in_pem(ec.generate_private_key(ec.SECP256R1())))
    return {"KEY": mounted.path("other")}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (_missing, "BOBRAI_API_TLS_CERTIFICATE: /.*/absent cannot be read: No such file"),
        (_folder, "BOBRAI_API_TLS_KEY: /.* cannot be read: Is a directory"),
        (_no_key, "BOBRAI_API_TLS_KEY: must be set too, because BOBRAI_API_TLS_CERTIFICATE is"),
        (_no_pair, "BOBRAI_API_TLS_CERTIFICATE: must be set too, because BOBRAI_API_TLS_CLIENT_CA is"),
        (_no_pem, "BOBRAI_API_TLS_CLIENT_CA: /.*/text must hold certificates in PEM"),
        (_encrypted, "BOBRAI_API_TLS_KEY: /.*/locked is encrypted; write the key without a passphrase"),
        (_other, "BOBRAI_API_TLS_KEY: the key in /.*/other is not that of the certificate in /.*/crt"),
    ],
)
async def test_wrong_files_end_the_process_with_the_variable(
    start: Callable[..., Process],
    mounted: Mounted,
    wrong: Callable[[Mounted], dict[str, str]],
    words: str,
) -> None:
    api = start(**wrong(mounted))
    assert await api.exited() == 2
    [line] = api.log_text().splitlines()
    assert line.startswith("bobrai: ")
    assert re.search(words, line), line
