"""No client's bytes, and no client's silence, take more of a server than they should."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.eventually import eventually_sync
from tests.unit.runtime.serving import BIG, CHUNKED, GET, PATIENT, Served, received, served


@pytest.fixture
def patient() -> Iterator[Served]:
    with served(PATIENT) as here:
        yield here


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    content: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % content["status"])
    assert content["request_id"].encode() in head
    return content


def head_of(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: "
    return start + b"y" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_may_have_32_kib_and_not_a_byte_more(patient: Served) -> None:
    assert b" 200 OK" in patient.ask(head_of(32 * 1024))
    too_large = problem(patient.ask(head_of(32 * 1024 + 1)))
    assert too_large["status"] == 431
    assert "32768 bytes and 100 lines" in too_large["detail"]


@pytest.mark.parametrize(("lines", "status"), [(99, 200), (100, 431), (1000, 431)])
def test_a_head_may_have_100_lines(patient: Served, lines: int, status: int) -> None:
    fields = b"x: y\r\n" * (lines - 1)
    answer = patient.ask(b"GET / HTTP/1.1\r\nhost: a\r\n" + fields + b"connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_who_sends_a_head_of_many_megabytes_can_read_why_it_was_refused(patient: Served) -> None:
    assert problem(patient.ask(GET[:-2] + b"x: " + b"y" * 20_000_000))["status"] == 431


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\na\r\n0\r\n" + b"x: y\r\n" * 2000 + b"\r\n",
        b"1\r\na\r\n0\r\nx: " + b"y" * 2_000_000 + b"\r\n\r\n",
        b"1;" + b"y" * 2_000_000 + b"\r\na\r\n0\r\n\r\n",
    ],
    ids=["lines", "value", "extension"],
)
def test_what_is_neither_head_nor_body_is_bounded_like_a_head(patient: Served, body: bytes) -> None:
    assert problem(patient.ask(CHUNKED + body))["status"] == 431


def test_what_is_no_request_gets_a_problem_document(patient: Served) -> None:
    assert problem(patient.ask(b"hello\r\n\r\n"))["status"] == 400
    assert problem(patient.ask(CHUNKED + b"zz\r\n"))["status"] == 400


def test_what_cannot_be_read_behind_a_request_does_not_answer_for_it(patient: Served) -> None:
    with closing(patient.connect()) as client:
        client.sendall(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
        eventually_sync(lambda: patient.app.hold)
        client.sendall(b"\x00garbage")
        patient.app.let_go()
        assert received(client).count(b"HTTP/1.1 ") == 1
    # and so when both come at once
    answer = patient.ask(GET + b"\x00garbage")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1


def test_requests_sent_at_once_are_answered_in_order(patient: Served) -> None:
    count = 5000
    posts = b"".join(
        b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (n % 10, b"z" * (n % 10))
        for n in range(count)
    )
    with closing(patient.connect()) as client:
        sender = threading.Thread(target=client.sendall, args=(posts,))
        sender.start()
        got = received(client, lambda got: got.count(b"HTTP/1.1 200 OK") == count and got.endswith(b"\r\n\r\n9"))
        sender.join()
    assert [int(part.rpartition(b"\r\n\r\n")[2]) for part in got.split(b"HTTP/1.1 ")[1:]] == [
        n % 10 for n in range(count)
    ]


def test_a_large_body_arrives_whole_and_a_request_behind_it_is_answered(patient: Served) -> None:
    size = 30_000_000
    post = b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"z" * size
    answer = patient.ask(post + head_of(100))
    assert answer.count(b" 200 OK") == 2
    assert b"\r\n\r\n%d" % size in answer


@pytest.mark.parametrize("apart", [False, True])
def test_who_offers_http_2_is_answered_in_http_1_1(patient: Served, apart: bool) -> None:
    """Java's HttpClient does so, and sends the body along."""
    head = (
        b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
    )
    with closing(patient.connect()) as client:
        for _ in range(3):
            if apart:
                client.sendall(head)
                eventually_sync(lambda: patient.server.server_state.tasks)  # the head was read
                client.sendall(b"hel")
                client.sendall(b"lo")
            else:
                client.sendall(head + b"hello")
            assert received(client, lambda got: got.endswith(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 OK")
        client.sendall(GET)
        assert received(client, lambda got: got.endswith(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200 OK")


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("head_seconds", b""),
        ("head_seconds", b"\r\n"),
        ("head_seconds", b"GET / HTTP/1.1\r\nho"),
        ("keep_alive_seconds", GET),
        ("rest_seconds", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx"),
    ],
    ids=["silent", "blank", "half a head", "idle", "half a body"],
)
def test_who_does_not_go_on_is_let_go(limit: str, sent: bytes) -> None:
    with served(PATIENT._replace(**{limit: 0.1, "close_seconds": 0.1})) as here, closing(here.connect()) as client:
        client.sendall(sent)
        answer = received(client)  # until the server closes
        if sent.startswith(b"GET / HTTP/1.1\r\nho") and sent != GET:
            assert problem(answer)["status"] == 408
        eventually_sync(lambda: here.open == 0)


@pytest.mark.parametrize(
    ("limit", "start"),
    [
        ("head_seconds", b"GET / HTTP/1.1\r\nx: "),
        ("rest_seconds", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"),
    ],
    ids=["head", "rest of a body"],
)
def test_who_drips_is_let_go_as_well(limit: str, start: bytes) -> None:
    with served(PATIENT._replace(**{limit: 0.3, "close_seconds": 0.1})) as here, closing(here.connect()) as client:
        client.sendall(start)

        def refused() -> bool:
            try:
                client.sendall(b"y")
            except OSError:
                return True
            return False

        eventually_sync(refused, timeout=60)


@pytest.mark.parametrize("ends", [b"", b"connection: close\r\n"])
def test_who_does_not_read_its_answer_is_let_go(ends: bytes) -> None:
    with (
        served(PATIENT._replace(stall_seconds=0.2, close_seconds=0.2)) as here,
        closing(here.connect()) as client,
    ):
        client.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n" + ends + b"\r\n")
        eventually_sync(lambda: here.open == 1)
        eventually_sync(lambda: here.open == 0)


def test_who_reads_none_of_many_answers_is_let_go_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with (
        served(PATIENT._replace(stall_seconds=0.2, close_seconds=0.2)) as here,
        closing(here.connect()) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n" * 50)
        eventually_sync(lambda: here.open == 1)
        eventually_sync(lambda: here.open == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", "This is not a request in HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "This is not a request in HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", "A request in HTTP/1.1 needs a Host header, and one only"),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "A request in HTTP/1.1 needs a Host header, and one only",
        ),
    ],
)
def test_what_is_not_ours_to_answer_is_refused_in_words_of_ours(head: bytes, words: str) -> None:
    with served(PATIENT) as here:
        refusal = problem(here.ask(head))
        assert (refusal["status"], refusal["detail"]) == (400, words)
        assert b" 200 OK" in here.ask(b"GET / HTTP/1.0\r\n\r\n")


def test_who_reads_slowly_gets_all_of_it() -> None:
    with served(PATIENT._replace(stall_seconds=0.5, close_seconds=0.5)) as here, closing(here.connect()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        pace = threading.Event()
        size = 0
        while part := client.recv(250_000):
            size += len(part)
            pace.wait(0.05)  # a slow line: several times as long in all as a client may stall
    assert size > BIG


# --- room -------------------------------------------------------------------------------------------------------------


def test_the_longest_silent_connection_makes_room_for_a_new_one() -> None:
    with served(PATIENT._replace(connections=20)) as here:
        silent = [here.connect() for _ in range(60)]
        try:
            for _ in range(3):
                assert b" 200 OK" in here.ask(head_of(100))
            eventually_sync(lambda: here.open <= 20)
        finally:
            for client in silent:
                client.close()


def test_a_request_under_way_makes_room_for_nobody() -> None:
    with served(PATIENT._replace(connections=5)) as here, closing(here.connect()) as working:
        working.sendall(b"GET /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        eventually_sync(lambda: here.app.hold)
        silent = [here.connect() for _ in range(20)]
        try:
            eventually_sync(lambda: here.open <= 5)
            here.app.let_go()
            assert b" 200 OK" in received(working)
        finally:
            for client in silent:
                client.close()


def test_one_address_has_no_more_connections_than_may_and_gets_its_place_back() -> None:
    with served(PATIENT._replace(connections_per_address=3)) as here:
        kept = [here.connect() for _ in range(3)]
        try:
            eventually_sync(lambda: here.open == 3)
            with closing(here.connect()) as one_more:
                assert received(one_more) == b""
            for client in kept:
                client.sendall(GET)
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            kept.pop().close()
            eventually_sync(lambda: here.open == 2)
            assert b" 200 OK" in here.ask(head_of(100))
        finally:
            for client in kept:
                client.close()
        eventually_sync(lambda: here.open == 0)
        assert not here.server.config.waits._addresses


def test_unfinished_heads_are_bounded_all_together() -> None:
    with served(PATIENT._replace(all_heads_bytes=100_000)) as here:
        clients = [here.connect() for _ in range(20)]
        try:
            for client in clients:
                client.sendall(GET[:-2] + b"x: " + b"y" * 20_000)
            refusal = received(clients[0])
            assert problem(refusal)["status"] == 503
            assert b"\r\nretry-after: 2\r\n" in refusal
            eventually_sync(lambda: here.server.config.waits._heads_bytes <= 100_000)
            assert b" 200 OK" in here.ask(head_of(5000))
        finally:
            for client in clients:
                client.close()
        eventually_sync(lambda: here.server.config.waits._heads_bytes == 0)


def test_a_connection_that_is_reset_leaves_nothing_behind(patient: Served) -> None:
    for sent in (b"", GET, GET[:20], GET[:-2] + b"x: " + b"y" * 20_000, b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n"):
        client = patient.connect()
        client.sendall(sent)
        eventually_sync(lambda: patient.open == 1)
        if sent == GET:
            client.recv(65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        eventually_sync(lambda: patient.open == 0)
        waits = patient.server.config.waits
        lists = (waits.silent, waits.heads, waits.idle, waits.rests, waits._closing, waits._stalled)
        assert not any(each.since for each in lists)
        assert (waits._stalled._left, waits._heads_bytes) == ({}, 0)
