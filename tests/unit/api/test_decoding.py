"""Bodies become envelopes, or every fault with its place."""

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.api import decoding, problems
from bobrai.api.problems import Fault, Problem
from bobrai.domain import limits

Decode = Callable[[bytes, list[Fault]], decoding.Envelopes]


def decoded(decode: Decode, body: bytes) -> list[decoding.Envelope]:
    faults: list[Fault] = []
    envelopes = [envelope for envelope in decode(body, faults) if envelope is not None]
    if faults:
        raise problems.invalid(faults)
    return envelopes


def refused(decode: Decode, body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decoded(decode, body)
    return caught.value


def pointers(problem: Problem) -> list[str]:
    return [fault.pointer for fault in problem.faults]


@pytest.mark.parametrize(
    "text", ['{"b": 1,\n "a":1e5}', "null", "-0", '"\\u0000"', '"\\ud83d\\ude00"', '{"a":1,"a":2}']
)
def test_the_payload_is_kept_as_it_was_written(text: str) -> None:
    (envelope,) = decoded(decoding.single, b'{"payload": %s , "type":"echo"}' % text.encode())
    assert envelope.payload == text


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"payload":1}x', b'{"payload":01}', b'{"payload":NaN}', b'{"payload":"\xff"}',
     b'\xef\xbb\xbf{"payload":1}',
     b'{"\xff":1}', b'{"payload":"\\ud800"}', b'{"payload":"\x00"}', b'{"payload":[1,]}'],
)  # fmt: skip
def test_what_is_not_json_in_utf8_is_a_bad_request(body: bytes) -> None:
    assert refused(decoding.single, body).status == 400


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null"])
def test_a_body_that_is_not_an_object_is_named_as_a_whole(body: bytes) -> None:
    problem = refused(decoding.single, body)
    assert (problem.status, pointers(problem)) == (422, [""])


@pytest.mark.parametrize(
    ("member", "pointer"),
    [
        (b'"priority":11', "/priority"), (b'"priority":-1', "/priority"), (b'"priority":"5"', "/priority"),
        (b'"priority":true', "/priority"), (b'"priority":1.5', "/priority"), (b'"priority":null', "/priority"),
        (b'"type":"a b"', "/type"), (b'"type":"a\\u0000"', "/type"), (b'"type":null', "/type"),
        (b'"queue":"UP"', "/queue"),
        (b'"queue":"a\\u0000"', "/queue"), (b'"delay_seconds":-1', "/delay_seconds"),
        (b'"delay_seconds":1e999', "/delay_seconds"),
        (b'"run_at":"2030-02-30T00:00:00Z"', "/run_at"), (b'"run_at":"2030-01-01T00:00:00"', "/run_at"),
        (b'"run_at":1893456000', "/run_at"), (b'"run_at":"0001-01-01T00:00:00+14:00"', "/run_at"),
        (b'"timeout_seconds":0', "/timeout_seconds"), (b'"max_attempts":0', "/max_attempts"),
        (b'"max_attempts":101', "/max_attempts"), (b'"retry":{"jitter":2}', "/retry/jitter"),
        (b'"retry":{"retry_for_seconds":0}', "/retry/retry_for_seconds"),
        (b'"retry":{"retry_for_seconds":null}', "/retry/retry_for_seconds"),
        (b'"retry":{"retry_for_seconds":31622401}', "/retry/retry_for_seconds"),
        (b'"deadline_seconds":0', "/deadline_seconds"), (b'"deadline_at":"soon"', "/deadline_at"),
        (b'"deadline_at":"2030-01-01T00:00:00Z","deadline_seconds":1', "/deadline_at"),
        (b'"expires_seconds":0', "/expires_seconds"), (b'"expires_seconds":31622401', "/expires_seconds"),
        (b'"expires_at":null', "/expires_at"), (b'"expires_at":"2100-01-01T00:00:00Z"', "/expires_at"),
        (b'"expires_at":"2030-01-01T00:00:00Z","expires_seconds":1', "/expires_at"),
        (b'"expires_at":"2030-01-01T01:00:00+01:00","run_at":"2030-01-01T00:00:00Z"', "/expires_at"),
        (b'"expires_seconds":60,"delay_seconds":60', "/expires_seconds"),
        (b'"deadline_at":"2030-01-01T01:00:00+01:00","run_at":"2030-01-01T00:00:00Z"', "/deadline_at"),
        (b'"deadline_seconds":5,"delay_seconds":10', "/deadline_seconds"),
        (b'"unique":{"key":"order"}', "/unique/key"), (b'"unique":{"while":"always"}', "/unique/for_seconds"),
        (b'"unique":{"while":null}', "/unique/while"), (b'"unique":{"x/y~":2}', "/unique/x~1y~0"),
        (b'"unique":[]', "/unique"),
        (b'"retry":{"x/y~":2}', "/retry/x~1y~0"), (b'"unknown":1', "/unknown"), (b'"retry":[]', "/retry"),
        (b'"run_at":"2030-01-01T00:00:00Z","delay_seconds":1', "/run_at"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_named_by_its_pointer(member: bytes, pointer: str) -> None:
    problem = refused(decoding.single, b'{"payload":1,%s}' % member)
    assert (problem.status, pointers(problem)) == (422, [pointer])


def test_every_fault_is_reported_at_once() -> None:
    problem = refused(decoding.single, b'{"payload":"","priority":99,"unknown":1,"queue":"UP"}')
    assert sorted(pointers(problem)) == ["/payload", "/priority", "/queue", "/unknown"]


def test_a_missing_payload_is_named() -> None:
    assert pointers(refused(decoding.single, b"{}")) == ["/payload"]


def test_an_integer_may_be_written_as_a_float() -> None:
    assert decoded(decoding.single, b'{"payload":1,"priority":5.0}')[0].fields.priority == 5


def test_an_offset_in_run_at_is_understood() -> None:
    (envelope,) = decoded(decoding.single, b'{"payload":1,"run_at":"2030-01-01t02:00:00.5+02:00"}')
    assert envelope.fields.run_at.timestamp() == 1893456000.5


@pytest.mark.parametrize(("length", "accepted"), [(0, False), (1, True), (10_000, True), (10_001, False)])
def test_a_string_payload_is_measured_in_characters(length: int, accepted: bool) -> None:
    body = msgspec.json.encode({"payload": "ä" * length})
    if accepted:
        assert decoded(decoding.single, body)[0].fields.payload == "ä" * length
    else:
        assert pointers(refused(decoding.single, body)) == ["/payload"]


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_has_an_exact_limit(opening: bytes, closing: bytes) -> None:
    def body(depth: int) -> bytes:
        return b'{"payload":' + opening * depth + b"1" + closing * depth + b"}"

    assert decoded(decoding.single, body(limits.MAX_JSON_DEPTH))
    for depth in (limits.MAX_JSON_DEPTH + 1, 5_000, 50_000):
        assert refused(decoding.single, body(depth)).status == 422


def test_many_brackets_that_do_not_nest_are_fine() -> None:
    assert decoded(decoding.single, b'{"payload":[' + b"[]," * 5_000 + b'"[[["]}')


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 5_000, b"[[1e999]]"])
def test_numbers_that_no_worker_could_read_are_refused(number: bytes) -> None:
    assert pointers(refused(decoding.single, b'{"payload":%s}' % number)) == ["/payload"]


def test_a_bad_item_of_a_batch_is_named_by_its_pointer() -> None:
    body = b'{"tasks":[{"payload":1},7,{"payload":1,"priority":99},{"payload":1e999},{}],"more":1}'
    assert pointers(refused(decoding.batch, body)) == [
        "/more", "/tasks/1", "/tasks/2/priority", "/tasks/3/payload", "/tasks/4/payload",
    ]  # fmt: skip


@pytest.mark.parametrize("tasks", [b"1", b"{}", b"[]", b"[" + b'{"payload":1},' * 1000 + b'{"payload":1}]'])
def test_a_batch_has_1_to_1000_items(tasks: bytes) -> None:
    assert pointers(refused(decoding.batch, b'{"tasks":%s}' % tasks)) == ["/tasks"]


def test_an_item_of_a_batch_may_be_as_large_as_a_single_task() -> None:
    large = b'{"payload":[' + b"1," * (limits.MAX_BODY_BYTES // 2) + b"1]}"
    assert pointers(refused(decoding.batch, b'{"tasks":[{"payload":1},%s]}' % large)) == ["/tasks/1"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decoding.single, b'{"payload":"HERE\\ud800"}'),
        (decoding.single, b'{"payload":["a","\\\\ud800","\\ud83d\\ude00 xHERE\\udc00y"]}'),
        (decoding.single, b'{"payload":{"HERE\\ud800\\u0041":1}}'),
        (decoding.single, b'{"HERE\\ud800":1}'),
        (decoding.single, b'{"type":"echo","payload":"HERE\\ud800 and more text behind it"}'),
        (decoding.batch, b'{"tasks":[{"payload":{"a":"HERE\\ud83d"},"type":"echo"}]}'),
        (decoding.batch, b'{"tasks":[{"payload":1},{"payload":"\\uD83D\\uDE00HERE\\uDBFF"}]}'),
    ],
)
def test_half_of_a_surrogate_pair_is_called_what_it_is(decode: Decode, body: bytes) -> None:
    problem = refused(decode, body.replace(b"HERE", b""))
    assert problem.status == 400
    assert problem.detail.startswith(f"The body has a lone surrogate at byte {body.index(b'HERE')}, such as \\ud800")


def test_a_body_that_ends_too_early_is_called_what_it_is() -> None:
    assert refused(decoding.single, b'{"payload":"\\ud83d\\ude00","ty').detail == (
        "The body is not JSON: Input data was truncated"
    )


@pytest.mark.parametrize("year", [b"1969", b"2100", b"9999"])
def test_a_moment_outside_the_years_is_called_what_it_is(year: bytes) -> None:
    problem = refused(decoding.single, b'{"payload":1,"run_at":"%s-01-01T00:00:00Z"}' % year)
    assert problem.faults == [Fault("/run_at", "must be within the years 1970 to 2099")]


def test_many_unknown_members_are_named_up_to_what_an_answer_holds() -> None:
    members = b",".join(b'"m%d":1' % n for n in range(20_000))
    assert len(refused(decoding.single, b"{%s}" % members).faults) == problems.MAX_FAULTS + 1  # and the payload
    beside = refused(decoding.batch, b'{"tasks":[{"payload":1}],%s}' % members)
    assert {fault.detail for fault in beside.faults} == {"is not a known field"}
    too_many = b",".join(b'"m%d":1' % n for n in range(50_000))
    assert pointers(refused(decoding.batch, b'{"tasks":[{"payload":1}],%s}' % too_many)) == ["/m0"]


@pytest.mark.parametrize("times", [1, decoding.LARGE_BYTES])
def test_the_last_of_several_tasks_of_a_batch_counts(times: int) -> None:
    faults: list[Fault] = []
    body = b'{%s"tasks":[{"payload":1},{"payload":2}]}' % (b'"tasks":[],' * times)
    assert [each.payload for each in decoding.batch(body, faults) if each is not None] == ["1", "2"]
    assert not faults


@pytest.mark.parametrize("size", [1, decoding.LARGE_BYTES])
def test_tasks_that_are_no_array_are_named(size: int) -> None:
    body = b'{"tasks":{"a":"%s"}}' % (b"x" * size)
    assert pointers(refused(decoding.batch, body)) == ["/tasks"]


def test_many_unknown_members_of_retry_are_named_up_to_what_an_answer_holds() -> None:
    members = ",".join(f'"m{number}":1' for number in range(20_000))
    faults: list[Fault] = []
    assert list(decoding.single(f'{{"payload":1,"retry":{{{members},"factor":0}}}}'.encode(), faults)) == [None]
    assert len(faults) == problems.MAX_FAULTS + 1
    assert faults[-1].pointer == "/retry/factor"


def test_the_last_of_several_members_of_one_name_counts() -> None:
    (envelope,) = decoded(decoding.batch, b'{"tasks":[],"tasks":[{"payload":1,"priority":1,"priority":2}]}')
    assert envelope.fields.priority == 2


@given(json_values)
def test_any_json_value_is_a_payload(value: object) -> None:
    text = msgspec.json.encode(value)
    (envelope,) = decoded(decoding.single, b'{"payload":%s}' % text)
    assert envelope.payload.encode() == text


@given(st.binary(max_size=60))
def test_no_body_at_all_breaks_the_decoder(body: bytes) -> None:
    for decode in (decoding.single, decoding.batch):
        with contextlib.suppress(Problem):  # whatever else is raised fails this test
            decoded(decode, body)
