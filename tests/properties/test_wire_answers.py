"""Answers read by hand are those that protobuf reads, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athena_async import wire
from athena_async._proto.athena import models_pb2

LABELS = st.builds(
    lambda label, weight: models_pb2.Classification(label=label, weight=weight),
    st.text(max_size=40),
    st.floats(0, 1, width=32),
)
ERRORS = st.builds(
    lambda code, message: models_pb2.ClassificationError(code=code, message=message),
    st.integers(0, 6),
    st.text(max_size=5),
)
OUTPUTS = st.builds(
    lambda name, labels, error: models_pb2.ClassificationOutput(
        correlation_id=name, classifications=labels, error=error
    ),
    st.text(max_size=64),
    st.lists(LABELS, max_size=9),
    st.none() | ERRORS,
)
RESPONSES = st.builds(
    lambda outputs, error: models_pb2.ClassifyResponse(outputs=outputs, global_error=error).SerializeToString(),
    st.lists(OUTPUTS, max_size=12),
    st.none() | ERRORS,
)


def by_protobuf(data: bytes) -> str:
    try:
        message = models_pb2.ClassifyResponse.FromString(data)
    except wire.DecodeError:
        return "no response"
    error = wire._service_error(message.global_error) if message.HasField("global_error") else None
    return repr(wire.Response([wire._answer(output) for output in message.outputs], error))


def by_hand(data: bytes) -> str:
    try:
        return repr(wire.read_response(data))
    except wire.DecodeError:
        return "no response"


@settings(max_examples=300, deadline=None)
@given(RESPONSES)
def test_whole_responses(data: bytes) -> None:
    assert by_hand(data) == by_protobuf(data)


@pytest.mark.timeout(60)
@settings(max_examples=600, deadline=None)
@given(RESPONSES, st.data())
def test_responses_with_a_few_bytes_changed_or_the_end_cut_off(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        if changed:
            changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        changed = changed[: draw.draw(st.integers(0, len(changed)))]
    assert by_hand(bytes(changed)) == by_protobuf(bytes(changed))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    assert by_hand(data) == by_protobuf(data)
