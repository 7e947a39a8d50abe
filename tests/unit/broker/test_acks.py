"""The ledger acks every settled tag once, and as many as it can together."""

from hypothesis import given
from hypothesis import strategies as st

from bobrai.broker.acks import AckLedger


class Peer:
    """What the broker makes of acks: raises for a tag that it does not wait for, as the broker closes the channel."""

    def __init__(self, tags: int) -> None:
        self.waiting = set(range(1, tags + 1))
        self.frames = 0

    def receive(self, acks: list[tuple[int, bool]]) -> None:
        for tag, multiple in acks:
            self.frames += 1
            assert tag in self.waiting, f"unknown delivery tag {tag}"
            self.waiting -= {each for each in self.waiting if each <= tag} if multiple else {tag}


@given(st.data())
def test_exactly_the_settled_tags_are_acked_in_whatever_order_they_settle(data: st.DataObject) -> None:
    tags = data.draw(st.integers(1, 40))
    order = data.draw(st.permutations(range(1, tags + 1)))
    settled_count = data.draw(st.integers(0, tags))
    ledger, peer = AckLedger(), Peer(tags)
    for tag in order[:settled_count]:
        ledger.settle(tag)
        if data.draw(st.booleans()):
            peer.receive(ledger.take())
    peer.receive(ledger.take())
    assert peer.waiting == set(range(1, tags + 1)) - set(order[:settled_count])


def test_a_run_is_acked_with_one_frame() -> None:
    ledger, peer = AckLedger(), Peer(100)
    for tag in range(1, 101):
        ledger.settle(tag)
    assert ledger.take() == [(100, True)]
    peer.receive([(100, True)])
    assert ledger.take() == []


def test_a_lone_tag_is_acked_alone() -> None:
    ledger = AckLedger()
    ledger.settle(1)
    assert ledger.take() == [(1, False)]


def test_a_gap_does_not_hold_back_what_lies_above_it() -> None:
    ledger = AckLedger()
    for tag in (2, 3, 5):
        ledger.settle(tag)
    assert ledger.take() == [(2, False), (3, False), (5, False)]
    ledger.settle(1)
    ledger.settle(4)
    assert ledger.take() == [(4, True)], "the run ends with a tag that the broker still waits for"


def test_a_ledger_of_a_long_life_stays_small() -> None:
    ledger = AckLedger()
    for tag in range(1, 10_001):
        ledger.settle(tag)
        if tag % 7 == 0:
            ledger.take()
    ledger.take()
    assert not ledger._settled
    assert not ledger._sent
