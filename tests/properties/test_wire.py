"""Frames written by hand against messages built by protobuf, and hostile bytes."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.config import MAX_ID_LENGTH
from athena_async.wire import Encoding, ImageFormat, Payload

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_ID_LENGTH)
# Around every size at which a length takes one byte more.
DATA = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([0, 1, 126, 127, 128, 129, 16_200, 16_383, 16_384, 2**21 - 1, 2**21, 2**21 + 1]).map(bytes),
)
PAYLOAD = st.builds(
    Payload,
    data=DATA | DATA.map(memoryview),
    format=st.sampled_from(ImageFormat),
    encoding=st.sampled_from(Encoding),
    md5=st.lists(st.from_regex(r"[0-9a-f]{32}", fullmatch=True), max_size=3).map(tuple),
    sha1=st.lists(st.from_regex(r"[0-9a-f]{40}", fullmatch=True), max_size=3).map(tuple),
)
IMAGE = st.tuples(TEXT, TEXT, PAYLOAD)


def message_of(affiliate: str, correlation_id: str, payload: Payload) -> models_pb2.ClassificationInput:
    """What the frame must say, by protobuf alone."""
    message = models_pb2.ClassificationInput(
        affiliate=affiliate,
        correlation_id=correlation_id,
        encoding=int(payload.encoding),  # type: ignore[arg-type]
        data=bytes(payload.data),
        format=int(payload.format),  # type: ignore[arg-type]
    )
    for value in payload.md5:
        message.hashes.add(value=value, type=models_pb2.HASH_TYPE_MD5)
    for value in payload.sha1:
        message.hashes.add(value=value, type=models_pb2.HASH_TYPE_SHA1)
    return message


@settings(deadline=None)
@given(st.text(max_size=64), st.lists(IMAGE, max_size=5))
def test_joined_frames_are_the_message_and_as_long(deployment_id: str, images: list[tuple[str, str, Payload]]) -> None:
    head = wire.request_head(deployment_id)
    frames = [wire.frame_input(*image) for image in images]
    request = wire.join_request(head, frames)
    expected = models_pb2.ClassifyRequest(deployment_id=deployment_id, inputs=[message_of(*image) for image in images])
    assert models_pb2.ClassifyRequest.FromString(request) == expected
    assert len(request) == len(head) + sum(frame.size_bytes for frame in frames) == expected.ByteSize()


@settings(deadline=None)
@given(IMAGE)
def test_a_single_request_is_the_message(image: tuple[str, str, Payload]) -> None:
    data = wire.single_request(wire.frame_input(*image))
    assert models_pb2.ClassificationInput.FromString(data) == message_of(*image)


@settings(deadline=None)
@given(st.lists(IMAGE, min_size=2, max_size=4))
def test_frames_of_one_request_do_not_depend_on_each_other(images: list[tuple[str, str, Payload]]) -> None:
    frames = [wire.frame_input(*image) for image in images]
    backwards = wire.join_request(wire.request_head("d"), reversed(frames))
    parsed = models_pb2.ClassifyRequest.FromString(backwards)
    assert [found.correlation_id for found in reversed(parsed.inputs)] == [image[1] for image in images]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_hostile_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    for read in (wire.read_response, wire.read_single, wire.read_deployments):
        with contextlib.suppress(wire.DecodeError):
            read(data)


RESPONSE = models_pb2.ClassifyResponse(
    outputs=[
        models_pb2.ClassificationOutput(
            correlation_id="an-id",
            classifications=[models_pb2.Classification(label="UnknownCSAM-Ducks", weight=0.5)] * 3,
        )
    ]
    * 3,
    global_error=models_pb2.ClassificationError(message="words", details="more"),
).SerializeToString()


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(RESPONSE)), st.lists(st.tuples(st.integers(0, len(RESPONSE) - 1), st.integers(0, 255))))
def test_a_damaged_response_is_read_or_refused_and_nothing_else(length: int, damage: list[tuple[int, int]]) -> None:
    data = bytearray(RESPONSE)
    for position, value in damage:
        data[position] = value
    with contextlib.suppress(wire.DecodeError):
        response = wire.read_response(bytes(data[:length]))
        assert all(isinstance(answer.correlation_id, str) for answer in response.answers)


@given(st.lists(st.tuples(TEXT, st.floats(width=32, allow_nan=False))))
def test_labels_and_weights_come_as_they_were_sent(pairs: list[tuple[str, float]]) -> None:
    message = models_pb2.ClassificationOutput(correlation_id="a")
    for label, weight in pairs:
        message.classifications.add(label=label, weight=weight)
    assert [tuple(found) for found in wire.read_single(message.SerializeToString()).classifications] == pairs
