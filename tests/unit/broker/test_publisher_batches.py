"""Confirms reach the publishes they belong to, however the broker groups them."""

from hypothesis import given
from hypothesis import strategies as st

from bobrai.broker.publisher import _Batch


def settle(batch: _Batch, answers: list[tuple[int, bool, bool]]) -> list[bool | None]:
    for tag, multiple, confirmed in answers:
        batch.settle(tag, multiple=multiple, confirmed=confirmed)
    return batch.outcomes


async def test_single_and_multiple_answers_mix() -> None:
    batch = _Batch(first=11, size=5)
    assert settle(batch, [(13, False, False), (12, True, True)]) == [True, True, False, None, None]
    assert not batch.done.done()
    assert settle(batch, [(99, True, True)]) == [True, True, False, True, True]
    assert batch.done.done()


@given(st.data())
async def test_every_publish_has_the_first_answer_that_names_it(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    batch = _Batch(first=5, size=size)
    expected: list[bool | None] = [None] * size
    for _ in range(data.draw(st.integers(0, 30))):
        tag = data.draw(st.integers(5, 4 + size))
        multiple, confirmed = data.draw(st.booleans()), data.draw(st.booleans())
        batch.settle(tag, multiple=multiple, confirmed=confirmed)
        for index in range(0 if multiple else tag - 5, tag - 4):
            if expected[index] is None:
                expected[index] = confirmed
    assert batch.outcomes == expected
    assert batch.open == expected.count(None)
    assert batch.done.done() is (None not in expected)
