"""The window bounds what waits in the broker, without a question to the broker while little waits."""

import pytest

from bobrai.dispatcher import window as window_module
from bobrai.dispatcher.fleet import NOBODY, Crew
from bobrai.dispatcher.window import Window

FAST = Crew(1, 50, 10_000.0, 10_000.0)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all windows."""
    clock = Clock()
    monkeypatch.setattr(window_module, "time", clock)
    return clock


def fitted(crew: Crew = NOBODY, least: int = 200) -> Window:
    """A window of the right size."""
    window = Window()
    window.fit(least, crew)
    return window


@pytest.mark.parametrize(
    ("crew", "size"),
    [(NOBODY, 200), (Crew(4, 400, 0.0, 0.0), 800), (FAST, 2500), (Crew(2, 20, 1.0, 2.0), 200)],
)
def test_the_size_follows_what_the_workers_can_do(clock: Clock, crew: Crew, size: int) -> None:
    assert fitted(crew).size == size


def test_little_load_needs_no_look(clock: Clock) -> None:
    window = fitted()
    for _ in range(199):
        clock.now += 1.0
        assert not window.should_look()
        window.published(1, 1)
    assert window.room() == 1
    window.published(1, 1)
    assert window.should_look()


def test_a_look_shows_what_was_consumed(clock: Clock) -> None:
    window = fitted()
    window.published(200, 200)
    assert window.room() == 0
    window.saw(50)
    assert window.room() == 150


def test_messages_count_as_many_hints_as_lately_published_ones_carry(clock: Clock) -> None:
    window = fitted(FAST)
    for _ in range(10):
        window.published(1000, 5)
    window.saw(5)
    assert 1300 <= window.room() <= 1700


def test_a_full_window_is_looked_at_now_and_then(clock: Clock) -> None:
    window = fitted(FAST)
    window.saw(2500)
    window.backlogged = True
    assert (window.room(), window.should_look()) == (0, False)
    clock.now += window.next_look_seconds()
    assert window.should_look()


def test_a_full_window_is_refilled_in_sips_that_pay(clock: Clock) -> None:
    window = fitted()
    window.published(200, 200)
    window.backlogged = True
    window.saw(190)
    assert window.room() == 0, "a transaction for ten hints is not worth it yet"
    clock.now += 0.1
    assert window.room() == 10, "but a few slow slots are not kept waiting"
    window.saw(100)
    assert window.room() == 100


def test_a_queue_that_the_broker_refuses_is_left_alone_longer_each_time(clock: Clock) -> None:
    window = fitted()
    assert window.close()
    assert (window.room(), window.should_look()) == (0, False)
    clock.now += 0.6
    assert window.room() == 200
    assert not window.close(), "it was said before"
    clock.now += 0.6
    assert window.room() == 0
    clock.now += 0.6
    window.accepted()
    assert window.close()
