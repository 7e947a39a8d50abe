"""A bundle is as large as one worker's moment, and never keeps another worker idle."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bobrai.dispatcher.bundles import BUNDLE_SECONDS, MAX_BUNDLE, bundle_size, bundles
from bobrai.dispatcher.fleet import NOBODY, Crew, crews
from bobrai.store.outbox import DueHint
from bobrai.store.workers import LiveWorker

NOW = datetime.now(UTC)


def due(count: int, priority: int = 0) -> list[DueHint]:
    """Hints of one priority."""
    return [DueHint(number + 1, 0, "default", priority, NOW, 0.0) for number in range(count)]


def crew(workers: int, each_per_second: float) -> Crew:
    """Equal workers."""
    return Crew(workers, 50 * workers, each_per_second, workers * each_per_second)


crew_of_any_kind = st.builds(
    lambda workers, speed: crew(workers, speed), st.integers(0, 50), st.floats(0, 1e6, allow_nan=False)
)


@given(st.integers(1, 5000), crew_of_any_kind)
def test_a_bundle_is_one_moments_work_and_a_fair_share(count: int, who: Crew) -> None:
    size = bundle_size(count, who)
    assert 1 <= size <= MAX_BUNDLE
    assert size == 1 or size / who.slowest_per_second <= BUNDLE_SECONDS
    messages = -(-count // size)
    assert messages >= min(count, who.workers), "every worker can have one"


def test_nothing_is_bundled_while_nothing_is_known_or_tasks_are_slow() -> None:
    assert bundle_size(1000, NOBODY) == 1
    assert bundle_size(1000, crew(3, 0.0)) == 1
    assert bundle_size(1000, crew(1, 10.0)) == 1


def test_short_tasks_share_a_message() -> None:
    assert bundle_size(1000, crew(1, 4000.0)) == 200
    assert bundle_size(1000, crew(4, 40_000.0)) == 250
    assert bundle_size(3, crew(1, 4000.0)) == 3


@given(st.lists(st.integers(0, 10), max_size=200), st.integers(1, 60))
def test_bundles_keep_every_hint_in_order_and_do_not_mix_priorities(priorities: list[int], size: int) -> None:
    hints = [
        DueHint(number, 0, "default", priority, NOW, 0.0)
        for number, priority in enumerate(sorted(priorities, reverse=True))
    ]
    cut = [list(chunk) for chunk in bundles(hints, size)]
    assert [hint for chunk in cut for hint in chunk] == hints
    assert all(len({hint.priority for hint in chunk}) == 1 and len(chunk) <= size for chunk in cut)


def test_a_crew_is_as_fast_as_its_reports() -> None:
    def living(number: int, queues: tuple[str, ...], **speeds: float) -> LiveWorker:
        return LiveWorker(number, queues, "host", 10, 0, speeds, NOW)

    found = crews(
        [living(1, ("a", "b"), a=100.0), living(2, ("a",), a=40.0), living(3, ("a",)), living(4, ("b",), c=9.0)]
    )
    assert found == {"a": Crew(3, 30, 40.0, 140.0), "b": Crew(2, 20, 0.0, 0.0)}
