"""Who is believed: the front proxy as the cluster describes it now, and nobody else, whatever was true before."""

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bobrai.settings import Settings
from tests.integration.external_metrics.certificates import Authority, Pair
from tests.integration.external_metrics.cluster import Cluster
from tests.integration.external_metrics.conftest import BASE, SERVICE, Files, Service, serving
from tests.integration.external_metrics.test_values import assert_status
from tests.support.eventually import eventually, stays

GUARDED = ["/apis", BASE, f"{BASE}/namespaces/shop/bobrai_backlog", "/openapi/v2", "/openapi/v3", "/version", "/x"]


async def status(client: httpx.AsyncClient) -> int | str:
    """What a guarded path answers; "refused" when not even the handshake succeeds."""
    try:
        return (await client.get(BASE)).status_code
    except httpx.TransportError:
        return "refused"


async def answered_anew(service: Service, shown: Pair) -> int | str:
    """What a new connection with this certificate gets."""
    return await status(await service.client(shown))


@pytest.mark.parametrize("path", GUARDED)
async def test_without_a_certificate_nothing_is_told(service: Service, path: str) -> None:
    client = await service.client()
    assert_status(await client.get(path), 401, "Unauthorized", "front proxy")
    assert_status(await client.post(path), 401, "Unauthorized", "front proxy")


async def test_a_strangers_certificate_is_refused(service: Service, authorities: Callable[[str], Authority]) -> None:
    stranger = authorities("stranger").client("front-proxy-client")
    assert await answered_anew(service, stranger) == "refused"


async def test_a_users_certificate_of_the_cluster_is_refused(
    service: Service, authorities: Callable[[str], Authority]
) -> None:
    """What lets one speak to the API server as oneself does not let one speak here as anybody."""
    admin = authorities("cluster-ca").client("front-proxy-client")
    assert await answered_anew(service, admin) == "refused"


async def test_a_servers_certificate_of_the_right_authority_is_refused(
    service: Service, front_proxy: Authority
) -> None:
    assert await answered_anew(service, front_proxy.server("front-proxy-client")) == "refused"


@pytest.mark.parametrize("path", GUARDED)
async def test_a_name_that_is_not_allowed_is_not_believed(service: Service, front_proxy: Authority, path: str) -> None:
    client = await service.client(front_proxy.client("somebody-else"))
    assert_status(await client.get(path), 401, "Unauthorized", "front proxy")


async def test_without_allowed_names_any_name_will_do(
    service: Service, cluster: Cluster, front_proxy: Authority
) -> None:
    cluster.trusts(front_proxy, names=[])
    client = await service.client(front_proxy.client("somebody-else"))
    await eventually(lambda: _is(status(client), 200))


async def test_the_front_proxy_must_speak_for_somebody(service: Service, proxy_pair: Pair) -> None:
    silent = await service.client(proxy_pair, {})
    assert_status(await silent.get(BASE), 401, "Unauthorized", "user")
    empty = await service.client(proxy_pair, {"X-Remote-User": ""})
    assert_status(await empty.get(BASE), 401, "Unauthorized", "user")


async def test_nobody_is_believed_and_nothing_is_ready_before_the_cluster_has_answered(
    settings_with: Callable[..., Settings], server_authority: Authority, cluster: Cluster, proxy_pair: Pair
) -> None:
    cluster.refuses = 503
    async with serving(settings_with(), server_authority, ready=False) as service:
        probe = await service.client()
        not_ready = await probe.get("/readyz")
        assert (not_ready.status_code, not_ready.text) == (503, "[-]front-proxy")
        assert (await probe.get("/livez")).status_code == 200
        assert await answered_anew(service, proxy_pair) == "refused"
        assert_status(await probe.get(BASE), 401, "Unauthorized")
        cluster.refuses = 0
        await eventually(service.is_ready)
        assert await answered_anew(service, proxy_pair) == 200


async def test_a_new_authority_is_believed_and_the_old_one_is_not_without_a_restart(
    service: Service,
    cluster: Cluster,
    authorities: Callable[[str], Authority],
    front_proxy: Authority,
    proxy_pair: Pair,
) -> None:
    fresh = authorities("fresh-front-proxy-ca")
    fresh_pair = fresh.client("front-proxy-client")
    open_connection = await service.client(proxy_pair)
    assert await status(open_connection) == 200
    assert await answered_anew(service, fresh_pair) == "refused"

    cluster.trusts(front_proxy, fresh, names=["front-proxy-client"])
    await eventually(lambda: _is(answered_anew(service, fresh_pair), 200))
    assert await answered_anew(service, proxy_pair) == 200

    cluster.trusts(fresh, names=["front-proxy-client"])
    await eventually(lambda: _is(answered_anew(service, proxy_pair), "refused"))
    assert await answered_anew(service, fresh_pair) == 200
    # Also what was open before: it is closed, and cannot be had again.
    assert await status(open_connection) == "refused"


class Stalled:
    """A client that shakes hands and sends by hand, so that the world may change in between."""

    def __init__(self, service: Service, shown: Pair) -> None:
        host, _, port = service.settings.external_metrics.bind.rpartition(":")
        self._address = (host, int(port))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(shown.certificate, shown.key)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing)

    async def shake_hands(self) -> None:
        """All but the last word, which shows the certificate and stays here."""
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send()
                self._incoming.write(await self._reader.read(65536))
            else:
                return

    def send(self, plain: bytes = b"") -> None:
        """What is left of the handshake, then some text."""
        if plain:
            self.tls.write(plain)
        self._writer.write(self._outgoing.read())

    async def answer(self) -> bytes:
        """All that comes until the service says goodbye or goes; empty when it said nothing."""
        heard, said_goodbye = b"", False
        try:
            async with asyncio.timeout(10):
                while not said_goodbye and (chunk := await self._reader.read(65536)):
                    self._incoming.write(chunk)
                    plain, said_goodbye = self._plain()
                    heard += plain
        except ConnectionError:
            pass  # gone without a goodbye
        finally:
            self._writer.close()
        return heard

    def _plain(self) -> tuple[bytes, bool]:
        plain = b""
        try:
            while part := self.tls.read(65536):
                plain += part
        except ssl.SSLWantReadError:
            return plain, False
        except ssl.SSLZeroReturnError:
            pass
        return plain, True


REQUEST = f"GET {BASE} HTTP/1.1\r\nHost: x\r\nX-Remote-User: hpa\r\n".encode()


async def swapped(cluster: Cluster, authority: Authority) -> None:
    """Let the service learn of another front proxy."""
    cluster.trusts(authority, names=["front-proxy-client"])
    seen = cluster.reads
    await eventually(lambda: cluster.reads >= seen + 2)


async def test_a_request_that_began_under_an_authority_that_is_gone_is_not_answered(
    service: Service, cluster: Cluster, authorities: Callable[[str], Authority], proxy_pair: Pair
) -> None:
    client = Stalled(service, proxy_pair)
    await client.shake_hands()
    client.send(REQUEST)
    await swapped(cluster, authorities("fresh-front-proxy-ca"))
    client.send(b"\r\n")
    assert b" 200 " not in await client.answer()


async def test_a_handshake_that_began_under_an_authority_that_is_gone_is_not_believed(
    service: Service, cluster: Cluster, authorities: Callable[[str], Authority], proxy_pair: Pair
) -> None:
    client = Stalled(service, proxy_pair)
    await client.shake_hands()
    await swapped(cluster, authorities("fresh-front-proxy-ca"))
    client.send(REQUEST + b"\r\n")
    assert (await client.answer()).startswith(b"HTTP/1.1 401 ")


async def test_no_session_can_be_resumed(service: Service, proxy_pair: Pair) -> None:
    client = Stalled(service, proxy_pair)
    await client.shake_hands()
    client.send(REQUEST + b"Connection: close\r\n\r\n")
    assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
    assert client.tls.session is not None
    assert not client.tls.session.has_ticket


async def test_an_authority_may_itself_be_signed_by_another(
    service: Service, cluster: Cluster, front_proxy: Authority, tmp_path: Path
) -> None:
    """The bundle then has the lower one alone, and Kubernetes believes it."""
    lower = Authority(tmp_path, "lower-ca", front_proxy)
    await swapped(cluster, lower)
    assert await answered_anew(service, lower.client("front-proxy-client")) == 200


async def test_allowed_names_change_without_a_restart(
    service: Service, proxy: httpx.AsyncClient, cluster: Cluster, front_proxy: Authority
) -> None:
    cluster.trusts(front_proxy, names=["renamed"])
    await eventually(lambda: _is(status(proxy), 401))
    assert await answered_anew(service, front_proxy.client("renamed")) == 200


async def test_what_was_learned_is_kept_while_the_cluster_does_not_answer(
    service: Service, cluster: Cluster, proxy_pair: Pair
) -> None:
    cluster.refuses = 503
    await stays(lambda: _is(answered_anew(service, proxy_pair), 200), 0.5)
    cluster.refuses = 0
    cluster.data["requestheader-client-ca-file"] = "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"
    await stays(lambda: _is(answered_anew(service, proxy_pair), 200), 0.5)
    cluster.data.clear()
    await stays(lambda: _is(answered_anew(service, proxy_pair), 200), 0.5)
    assert await service.is_ready()


async def test_the_pods_token_is_read_again_when_it_is_rotated(
    service: Service, cluster: Cluster, front_proxy: Authority
) -> None:
    cluster.token = "second-token"
    cluster.trusts(front_proxy, names=["renamed"])
    cluster.project()
    await eventually(lambda: _is(answered_anew(service, front_proxy.client("renamed")), 200))


async def test_an_impostor_of_the_cluster_is_not_believed(
    settings_with: Callable[..., Settings],
    server_authority: Authority,
    cluster: Cluster,
    authorities: Callable[[str], Authority],
    proxy_pair: Pair,
) -> None:
    """The Kubernetes API must prove itself by the authority in the pod's folder."""
    (cluster.account / "ca.crt").write_text(authorities("stranger").pem)
    async with serving(settings_with(), server_authority, ready=False) as service:
        await stays(lambda: _is(answered_anew(service, proxy_pair), "refused"), 0.5)
        assert cluster.reads == 0
        (cluster.account / "ca.crt").write_text(authorities("cluster-ca").pem)
        await eventually(service.is_ready)


async def test_the_servers_certificate_changes_without_a_restart(
    service: Service, authorities: Callable[[str], Authority], files: Files, proxy_pair: Pair
) -> None:
    fresh = authorities("fresh-service-ca")
    files.write(fresh.server(SERVICE))
    renewed = Service(service.settings, fresh, service._clients)
    await eventually(lambda: _is(answered_anew(renewed, proxy_pair), 200))
    assert await answered_anew(service, proxy_pair) == "refused"


async def test_half_a_new_certificate_is_not_taken(
    service: Service, authorities: Callable[[str], Authority], files: Files, proxy_pair: Pair
) -> None:
    pair = authorities("fresh-service-ca").server(SERVICE)
    shutil.copy(pair.certificate, files.certificate)
    await stays(lambda: _is(answered_anew(service, proxy_pair), 200), 0.5)
    shutil.copy(pair.key, files.key)
    renewed = Service(service.settings, authorities("fresh-service-ca"), service._clients)
    await eventually(lambda: _is(answered_anew(renewed, proxy_pair), 200))


async def _is(answer: "asyncio.Future[int | str]", expected: int | str) -> bool:  # type: ignore[misc]
    return await answer == expected
