"""What a worker says of its speed."""

import pytest

from bobrai.worker.speeds import Speeds


def one_round(speeds: Speeds, tasks: dict[str, tuple[int, float]], *, elapsed: float, saturated: bool) -> None:
    for queue, (count, seconds) in tasks.items():
        for _ in range(count):
            speeds.add(queue, seconds)
    speeds.end_round(elapsed, saturated=saturated)


def test_speed_of_slow_tasks_is_slots_by_run_time() -> None:
    speeds = Speeds(10)
    one_round(speeds, {"default": (3, 0.5)}, elapsed=0.25, saturated=False)
    assert speeds.changed() == {"default": 20.0}


def test_speed_is_never_beyond_what_a_busy_worker_has_shown() -> None:
    speeds = Speeds(50)
    for _ in range(30):
        one_round(speeds, {"default": (25, 0.0001)}, elapsed=0.25, saturated=True)
    assert speeds.changed() == {"default": pytest.approx(100, rel=0.01)}


def test_idle_worker_with_quick_tasks_claims_no_wonders() -> None:
    speeds = Speeds(50)
    one_round(speeds, {"default": (1, 0.0001)}, elapsed=0.25, saturated=False)
    assert speeds.changed() == {"default": 2000.0}


def test_speed_that_was_really_seen_counts_without_saturation() -> None:
    speeds = Speeds(50)
    one_round(speeds, {"default": (1500, 0.0001)}, elapsed=0.25, saturated=False)
    assert speeds.changed() == {"default": 6000.0}


def test_queues_share_the_worker_and_each_is_rated_as_if_alone() -> None:
    speeds = Speeds(4)
    for _ in range(30):
        one_round(speeds, {"slow": (2, 0.25), "quick": (50, 0.01)}, elapsed=0.25, saturated=True)
    assert speeds.changed() == {"slow": pytest.approx(16), "quick": pytest.approx(400)}


def test_only_a_real_change_is_worth_a_report() -> None:
    speeds = Speeds(10)
    one_round(speeds, {"default": (5, 0.1)}, elapsed=0.25, saturated=False)
    first = speeds.changed()
    assert first == {"default": 100.0}
    speeds.reported(first)
    assert speeds.changed() is None
    one_round(speeds, {"default": (5, 0.12)}, elapsed=0.25, saturated=False)
    assert speeds.changed() is None
    for _ in range(10):
        one_round(speeds, {"default": (5, 1.0)}, elapsed=0.25, saturated=False)
    assert speeds.changed() is not None
    speeds.reported(speeds.changed() or {})
    speeds.forget_reports()
    assert speeds.changed() is not None


def test_work_ahead_is_twenty_milliseconds_of_the_slowest_queue() -> None:
    speeds = Speeds(10)
    assert speeds.claim_ahead == 0
    one_round(speeds, {"quick": (5, 0.001)}, elapsed=0.25, saturated=False)
    assert speeds.claim_ahead == 40
    one_round(speeds, {"quick": (5, 0.001), "slow": (5, 2.0)}, elapsed=0.25, saturated=False)
    assert speeds.claim_ahead == 0
