"""The sink answers each input of a request, whatever its shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from athena_async import wire
from benchmarks import sink

HEAD = wire.request_head("deployment")
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


def request(ids: list[str], payloads: list[wire.Payload]) -> bytes:
    pairs = zip(ids, payloads, strict=True)
    return wire.join_request(HEAD, [wire.frame_input("affiliate", name, payload) for name, payload in pairs])


def answered(data: bytes) -> list[tuple[str, int]]:
    return [(answer.correlation_id, len(answer.classifications)) for answer in wire.read_response(data).answers]


def test_inputs_of_one_shape_take_the_short_way() -> None:
    ids = [f"{i:020d}" for i in range(300)]
    data = request(ids, [wire.Payload(b"", md5=(MD5,))] * 300)
    assert sink.same_shape_ids(data) == [name.encode() for name in ids]
    assert answered(sink.answer(data)) == [(name, 1) for name in ids]


def test_image_data_that_looks_like_fields_misleads_nobody() -> None:
    ids = ["a" * 18, "b" * 18, "c" * 18]
    first = wire.Payload(b"\x12\x12" * 600, wire.ImageFormat.RAW_UINT8_BGR)
    data = request(ids, [first, *[wire.Payload(b"\x00" * 1200, wire.ImageFormat.RAW_UINT8_BGR)] * 2])
    assert answered(sink.answer(data)) == [(name, 8) for name in ids]


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=64), st.binary(max_size=300)), max_size=20))
def test_any_mixture_is_answered_in_order(inputs: list[tuple[str, bytes]]) -> None:
    payloads = [wire.Payload(data, wire.ImageFormat.PNG, md5=(MD5,)) for _, data in inputs]
    ids = [name for name, _ in inputs]
    assert [name for name, _ in answered(sink.answer(request(ids, payloads)))] == ids


def test_a_keep_alive_has_no_answer() -> None:
    assert sink.answer(HEAD) == b""


def test_a_single_input_is_answered() -> None:
    frame = wire.frame_input("affiliate", "one", wire.Payload(b"x" * 2000, wire.ImageFormat.RAW_UINT8_BGR))
    answer = wire.read_single(sink.answer_single(wire.single_request(frame)))
    assert answer.correlation_id == "one"
