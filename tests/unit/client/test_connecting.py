"""Where the client goes, and what each request carries."""

import ssl
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from bobrai.client import Client, connecting, operations
from bobrai.client.exchange import Patience, Request, Send
from bobrai.domain.errors import ConfigurationError
from tests.support.certificates import Authority, key_in_pem

SECRET = "bobrai_k7x2m9q4w1ab_" + "s" * 43


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOBRAI_URL", "BOBRAI_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_url_and_key_are_those_of_the_environment_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().url == "http://127.0.0.1:8001"
    monkeypatch.setenv("BOBRAI_URL", "https://tasks.example/bobrai/")
    monkeypatch.setenv("BOBRAI_API_KEY", SECRET)
    client = Client()
    assert client.url == "https://tasks.example/bobrai"
    assert client._target.pool()["headers"]["authorization"] == f"Bearer {SECRET}"
    assert Client("http://other:1", "").url == "http://other:1"
    assert "authorization" not in Client("http://other:1", "")._target.pool()["headers"]


@pytest.mark.parametrize("url", ["tasks.example", "ftp://x", "http://", "http://x/?a=b", "http://x/#y"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the URL of an API"):
        Client(url)


@pytest.mark.parametrize("url", ["http://ada:hunter2@x", "ftp://ada:hunter2@x", "http://hunter2:x", "http://[hunter2"])
def test_a_url_that_holds_a_secret_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the URL of the API") as told:
        Client(url)
    assert "hunter2" not in str(told.value)


def test_no_step_of_a_try_may_take_longer_than_is_left() -> None:
    target = Client("http://x", timeout=10)._target
    assert set(target.request(Request("GET", "/"), Send(2.0))["timeout"].as_dict().values()) == {2.0}
    assert target.request(Request("GET", "/"), Send(30.0))["timeout"].as_dict() == {
        "connect": 10, "pool": 10, "read": 30, "write": 30,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "bücher"])
def test_what_is_no_key_is_said_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the API key is none") as told:
        Client(api_key=key)
    assert key not in str(told.value)


def test_the_key_is_shown_nowhere() -> None:
    client = Client("http://x:1", SECRET)
    assert SECRET not in repr(client) + str(vars(client)) + repr(client.task(1))


def test_files_of_tls_that_cannot_be_used_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Authority(tmp_path).client("ada")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(key_in_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    missing = str(tmp_path / "missing.pem")
    for ca, certificate, said in [
        (missing, None, f"^ca: {missing} cannot be read"),
        (pair.key, None, f"^ca: {pair.key} must hold certificates in PEM"),
        (None, (missing, str(pair.key)), f"^certificate: {missing} cannot be read"),
        (None, (str(pair.certificate), str(encrypted)), f"^key of the certificate: {encrypted} is encrypted"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            Client("https://x", ca=ca, certificate=certificate)
    monkeypatch.setenv("SSL_CERT_FILE", missing)
    with pytest.raises(ConfigurationError, match=f"^SSL_CERT_FILE: {missing} cannot be read"):
        Client("https://x")


def test_an_authority_of_ones_own_is_taken_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Authority(tmp_path).file
    assert not is_strict(ca=file)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not is_strict()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert not is_strict()


def is_strict(ca: Path | None = None) -> bool:
    """Whether certificates without key identifiers are refused, as Python 3.13 does unless told otherwise."""
    context = connecting.target(
        "https://x", "", ca=ca, certificate=None, patience=Patience(), max_connections=1
    ).context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    return bool(context.verify_flags & ssl.VERIFY_X509_STRICT)


def test_the_callers_span_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connecting.trace_headers() == {}
    span = NonRecordingSpan(
        SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")]))
    )
    token = context.attach(trace.set_span_in_context(span))
    try:
        target = Client("http://x")._target
        assert target.request(Request("GET", "/"), Send(1.0))["headers"] == {
            "traceparent": f"00-{1:032x}-{2:016x}-01",
            "tracestate": "a=b",
        }
    finally:
        context.detach(token)


@pytest.mark.parametrize(
    ("error", "unsent"),
    [
        (httpx.ConnectError("refused"), True), (httpx.ConnectTimeout(""), True), (httpx.PoolTimeout(""), True),
        (httpx.ReadTimeout(""), False), (httpx.ReadError(""), False), (httpx.WriteError(""), False),
        (httpx.RemoteProtocolError("cut"), False),
    ],
    ids=repr,
)  # fmt: skip
def test_only_what_never_left_counts_as_unsent(error: httpx.HTTPError, unsent: bool) -> None:
    failure = connecting.failure(error, Client("http://x")._target)
    assert failure.unsent is unsent
    assert "http://x" in str(failure)


def test_names_in_paths_are_escaped() -> None:
    assert operations.named("/queues", "a/b?c") == "/queues/a%2Fb%3Fc"


def test_nothing_is_connected_before_the_first_call() -> None:
    client = Client("http://x")
    assert client._pool is None
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.queues()
