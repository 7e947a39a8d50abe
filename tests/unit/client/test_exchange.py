"""Which requests are sent again, how long later, and when it is enough."""

from collections.abc import Sequence
from typing import Any

import pytest

from bobrai.client import errors
from bobrai.client.errors import ApiError, BadAnswer, ConnectionFailed
from bobrai.client.exchange import Answer, Patience, Pause, Request, Send, exchange

OK = Answer(200, {}, b"{}")
CUT = ConnectionFailed("cut")
UNSENT = ConnectionFailed("refused", unsent=True)
SUBMIT = Request("POST", "/api/v1/tasks")
ONCE = Request("POST", "/api/v1/tasks/1/replay", is_repeatable=False)


def refused(kind: str, status: int, **headers: str) -> Answer:
    body = b'{"type":"urn:bobrai:problem:%s","title":"t","detail":"d","status":%d}' % (kind.encode(), status)
    return Answer(status, {"content-type": "application/problem+json", **headers}, body)


class Trial:
    """One exchange against given answers, on a clock that only pauses and answers move."""

    def __init__(self, request: Request, answers: Sequence[Answer | ConnectionFailed], **patience: float) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.timeouts: list[float] = []
        self.sent = 0
        self.error: Exception | None = None
        self.answer: Answer | None = None
        self._run(exchange(request, Patience(**patience), lambda: self.now, lambda _low, high: high), list(answers))

    def _run(self, steps: Any, answers: list[Answer | ConnectionFailed]) -> None:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = next(steps)
                    continue
                assert isinstance(step, Send)
                self.timeouts.append(step.timeout_seconds)
                self.sent += 1
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                step = steps.throw(answer) if isinstance(answer, ConnectionFailed) else steps.send(answer)
        except StopIteration as end:
            self.answer = end.value
        except errors.ClientError as error:
            self.error = error


@pytest.mark.parametrize(
    "trouble",
    [CUT, UNSENT, *(refused("x", status) for status in (408, 429, 502, 503, 504)), Answer(502, {}, b"<html>")],
    ids=str,
)
def test_what_may_be_better_later_is_sent_again(trouble: Any) -> None:
    trial = Trial(SUBMIT, [trouble, trouble, OK])
    assert (trial.answer, trial.sent) == (OK, 3)
    assert trial.pauses == [0.1, 0.2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_stays_wrong_is_told_at_once(status: int) -> None:
    trial = Trial(SUBMIT, [refused("x", status)])
    assert trial.sent == 1
    assert isinstance(trial.error, ApiError)


def test_a_certificate_that_is_not_believed_is_told_at_once() -> None:
    mistrust = ConnectionFailed("self-signed", unsent=True, is_lasting=True)
    trial = Trial(SUBMIT, [mistrust])
    assert (trial.sent, trial.error) == (1, mistrust)


@pytest.mark.parametrize(
    ("trouble", "sent"),
    [
        (UNSENT, 2),
        (refused("crowded", 503), 2),
        (refused("overloaded", 503), 2),
        (refused("rate-limited", 429), 2),
        (refused("too-many-at-once", 429), 2),
        (CUT, 1),
        (refused("unavailable", 503), 1),
        (refused("too-many-waiting", 429), 1),
        (Answer(502, {}, b""), 1),
    ],
    ids=str,
)
def test_what_must_not_happen_twice_is_sent_again_only_if_nothing_has_happened(trouble: Any, sent: int) -> None:
    trial = Trial(ONCE, [trouble, OK])
    assert trial.sent == sent
    assert (trial.answer is OK) == (sent == 2)


@pytest.mark.parametrize("trouble", [CUT, refused("unavailable", 503)], ids=str)
def test_the_error_of_a_submit_tells_the_key_to_go_on_with(trouble: Any) -> None:
    trial = Trial(Request("POST", "/", idempotency_key="k"), [trouble], deadline=0.01)
    assert isinstance(trial.error, errors.ClientError)
    assert trial.error.idempotency_key == "k"


def test_pauses_grow_to_a_bound() -> None:
    trial = Trial(SUBMIT, [CUT], deadline=60)
    assert trial.pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(trial.pauses[7:]) == {5.0}
    assert 50 < sum(trial.pauses) <= 60
    assert trial.error is CUT


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("0", 0.0), ("soon", 0.0)])
def test_no_pause_is_shorter_than_retry_after_asks_for(header: str, seconds: float) -> None:
    trial = Trial(SUBMIT, [refused("queue-full", 429, **{"retry-after": header}), OK])
    assert trial.pauses == [seconds + 0.1]


def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    trial = Trial(SUBMIT, [refused("rate-limited", 429, **{"retry-after": "61"})], deadline=60)
    assert (trial.sent, trial.pauses) == (1, [])
    assert isinstance(trial.error, errors.RateLimited)
    assert trial.error.retry_after == 61


def test_a_try_may_take_its_timeout_and_what_the_answer_is_held_for() -> None:
    assert Trial(Request("GET", "/"), [OK], timeout=10).timeouts == [10]
    assert Trial(Request("GET", "/", held_seconds=20), [OK], timeout=10).timeouts == [30]
    assert Trial(Request("GET", "/"), [OK], timeout=10, deadline=2).timeouts == [2]
    bounded = Trial(Request("GET", "/", within_seconds=1.0), [CUT], timeout=10)
    assert bounded.timeouts[0] == 1.0
    assert sum(bounded.pauses) <= 1.0


def test_the_last_error_is_raised() -> None:
    trial = Trial(SUBMIT, [CUT, Answer(502, {}, b"<html>Bad gateway</html>")], deadline=3)
    assert isinstance(trial.error, BadAnswer)
    assert "<html>Bad gateway</html>" in str(trial.error)
