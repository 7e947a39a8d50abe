"""Which deliveries of one channel are settled, and the fewest acks that say so.

In: delivery tags, as their tasks end, in any order. Out: acks, most of them "everything up to this tag", which cost the
broker a quarter of one ack each. Tags of a channel count 1, 2, 3 …; next: `channels.py` sends what `take` returns.
"""


class AckLedger:
    """The settled tags of one channel."""

    def __init__(self) -> None:
        self._floor = 0  # every tag up to here was acked
        self._settled: set[int] = set()  # to be acked
        self._sent: set[int] = set()  # acked one by one, above the floor

    def settle(self, tag: int) -> None:
        """Note a tag to be acked; each tag once."""
        self._settled.add(tag)

    def take(self) -> list[tuple[int, bool]]:
        """Return (tag, multiple) for all that was settled since the last call; with `multiple`, all up to the tag."""
        if not self._settled:
            return []
        acks: list[tuple[int, bool]] = []
        last = run = 0  # the highest unsent tag of the run that starts at the floor, and how many unsent ones it has
        tag = self._floor + 1
        while True:
            if tag in self._settled:
                self._settled.remove(tag)
                last, run = tag, run + 1
            elif tag in self._sent:
                self._sent.remove(tag)
            else:
                break
            tag += 1
        self._floor = tag - 1
        if run:
            acks.append((last, run > 1))
        acks += [(lone, False) for lone in sorted(self._settled)]
        self._sent |= self._settled
        self._settled.clear()
        return acks
