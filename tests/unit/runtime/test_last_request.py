"""A server that ends lets no client's request meet a closed connection."""

import socket
from contextlib import closing

import pytest

from tests.support.eventually import eventually_sync
from tests.unit.runtime.serving import GET, LONG, PATIENT, Served, received, served


def answered(client: socket.socket) -> bytes:
    """One answer of this application, which has one character."""
    return received(client, lambda got: got.endswith(b"\r\n\r\n0"))


def end(here: Served) -> None:
    """Have the server end, and return once it does not take connections any more."""
    here.server.should_exit = True

    def refused() -> bool:
        try:
            here.connect().close()
        except OSError:
            return True
        return False

    eventually_sync(refused)


@pytest.mark.parametrize("before", [b"", GET], ids=["its first", "its next"])
def test_an_idle_client_gets_an_answer_to_one_more_request_which_says_that_it_is_the_last(before: bytes) -> None:
    limits = PATIENT._replace(last_call_seconds=LONG)
    with served(limits, drain_seconds=LONG) as here, closing(here.connect()) as client:
        if before:
            client.sendall(before)
            assert b"connection: close" not in answered(client)
        eventually_sync(lambda: here.open == 1)
        end(here)
        client.sendall(GET)
        answer = received(client)  # until the server closes
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer


def test_whoever_stays_idle_is_let_go_and_who_has_begun_a_request_is_not() -> None:
    limits = PATIENT._replace(last_call_seconds=0.2)
    with (
        served(limits, drain_seconds=LONG) as here,
        closing(here.connect()) as idle,
        closing(here.connect()) as begun,
    ):
        idle.sendall(GET)
        assert answered(idle)
        begun.sendall(GET[:5])
        eventually_sync(lambda: here.open == 2)
        end(here)
        assert received(idle) == b""  # the time is over
        begun.sendall(GET[5:])
        assert b"\r\nconnection: close\r\n" in received(begun)


def test_an_answer_under_way_is_the_last_one() -> None:
    with (
        served(PATIENT._replace(last_call_seconds=LONG), drain_seconds=LONG) as here,
        closing(here.connect()) as client,
    ):
        client.sendall(GET.replace(b"/ ", b"/held ", 1))
        eventually_sync(lambda: here.app.hold)
        end(here)
        here.app.let_go()
        assert b"\r\nconnection: close\r\n" in received(client)
