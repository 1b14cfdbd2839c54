from __future__ import annotations

import struct

import pytest

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.config import RAW_FRAME_BYTES
from athena_async.errors import ErrorCode
from athena_async.results import Classification
from athena_async.wire import Encoding, ImageFormat, Payload


def request_of(*frames: wire.Frame, deployment_id: str = "d") -> models_pb2.ClassifyRequest:
    return models_pb2.ClassifyRequest.FromString(wire.join_request(wire.request_head(deployment_id), frames))


def test_a_request_says_what_the_payload_says() -> None:
    payload = Payload(b"\x00\x01", ImageFormat.RAW_UINT8_BGR, Encoding.BROTLI, ("ab" * 16,), ("cd" * 20, "ef" * 20))
    (image,) = request_of(wire.frame_input("acme", "an-id", payload)).inputs
    assert (image.affiliate, image.correlation_id, image.data) == ("acme", "an-id", b"\x00\x01")
    assert (image.format, image.encoding) == (
        models_pb2.IMAGE_FORMAT_RAW_UINT8_BGR,
        models_pb2.REQUEST_ENCODING_BROTLI,
    )
    assert [(found.value, found.type) for found in image.hashes] == [
        ("ab" * 16, models_pb2.HASH_TYPE_MD5),
        ("cd" * 20, models_pb2.HASH_TYPE_SHA1),
        ("ef" * 20, models_pb2.HASH_TYPE_SHA1),
    ]


def test_the_head_alone_is_a_keep_alive() -> None:
    keep_alive = models_pb2.ClassifyRequest.FromString(wire.join_request(wire.request_head("a-deployment"), []))
    assert (keep_alive.deployment_id, len(keep_alive.inputs)) == ("a-deployment", 0)


def test_numbers_are_those_of_the_contract() -> None:
    for name, number in ImageFormat.__members__.items():
        assert models_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name}") == number
    assert len(ImageFormat) == len(models_pb2.ImageFormat.keys())
    for name, number in Encoding.__members__.items():
        assert models_pb2.RequestEncoding.Value(f"REQUEST_ENCODING_{name}") == number
    assert len(Encoding) == len(models_pb2.RequestEncoding.keys())


def test_data_is_referred_to_and_not_copied() -> None:
    data = bytearray(b"x" * 1000)
    frame = wire.frame_input("acme", "an-id", Payload(memoryview(data), ImageFormat.PNG))
    data[:] = b"y" * 1000
    assert request_of(frame).inputs[0].data == b"y" * 1000


def test_a_raw_frame_has_little_on_top() -> None:
    payload = Payload(bytes(RAW_FRAME_BYTES), ImageFormat.RAW_UINT8_BGR, md5=("a" * 32,), sha1=("b" * 40,))
    frame = wire.frame_input("an-affiliate", "x" * 64, payload)
    assert 0 < frame.size_bytes - RAW_FRAME_BYTES < 250


def test_no_frame_shows_what_is_in_it() -> None:
    frame = wire.frame_input("acme", "an-id", Payload(b"secret-pixels", ImageFormat.PNG, md5=("5ec2e7" * 5 + "00",)))
    assert repr(frame) == f"Frame({frame.size_bytes} bytes)"


def test_reads_answers_errors_and_global_errors() -> None:
    message = models_pb2.ClassifyResponse()
    scored = message.outputs.add(correlation_id="scored")
    scored.classifications.add(label="UnknownCSAM-Ducks", weight=0.5)
    scored.classifications.add(label="UnknownCSAM-Entropy", weight=1.5)
    failed = message.outputs.add(correlation_id="failed")
    failed.error.code, failed.error.message, failed.error.details = models_pb2.ERROR_CODE_MODEL_ERROR, "busy", "gpu 3"
    message.outputs.add(correlation_id="empty")
    message.global_error.code = models_pb2.ERROR_CODE_DEPLOYMENT_ID_INVALID
    response = wire.read_response(message.SerializeToString())
    assert response.answers == [
        wire.Answer(
            "scored", (Classification("UnknownCSAM-Ducks", 0.5), Classification("UnknownCSAM-Entropy", 1.5)), None
        ),
        wire.Answer("failed", (), wire.ServiceError(ErrorCode.MODEL_ERROR, "busy", "gpu 3")),
        wire.Answer("empty", (), None),
    ]
    assert response.global_error is not None
    assert (response.global_error.code, response.global_error.text) == (
        ErrorCode.DEPLOYMENT_ID_INVALID,
        "no message",
    )
    assert response.answers[1].error is not None
    assert response.answers[1].error.text == "busy (gpu 3)"


@pytest.mark.parametrize(
    ("code", "message", "scored", "is_error"),
    [(0, "", True, False), (0, "", False, True), (0, "why", True, True), (3, "", True, True), (3, "", False, True)],
)
def test_an_empty_error_beside_scores_is_none(code: int, message: str, scored: bool, is_error: bool) -> None:
    output = models_pb2.ClassificationOutput(correlation_id="a")
    output.error.code, output.error.message = code, message  # type: ignore[assignment]
    output.error.SetInParent()
    if scored:
        output.classifications.add(label="UnknownCSAM-Ducks", weight=0.5)
    assert (wire.read_single(output.SerializeToString()).error is not None) is is_error


@pytest.mark.parametrize("code", [1, 7, 99, -1])
def test_codes_of_a_later_service_are_unspecified(code: int) -> None:
    output = models_pb2.ClassificationOutput(correlation_id="a")
    output.error.code = code  # type: ignore[assignment]
    error = wire.read_single(output.SerializeToString()).error
    assert error is not None
    assert error.code is ErrorCode.UNSPECIFIED


def test_fields_of_a_later_service_are_passed_over() -> None:
    output = models_pb2.ClassificationOutput(correlation_id="a").SerializeToString() + b"\xfa\x3f\x03new"
    assert wire.read_single(output).correlation_id == "a"


def test_reads_deployments() -> None:
    message = models_pb2.ListDeploymentsResponse()
    message.deployments.add(deployment_id="d", backlog=-1)
    assert [
        tuple(getattr(row, name) for name in ("deployment_id", "backlog"))
        for row in wire.read_deployments(message.SerializeToString())
    ] == [("d", -1)]
    assert wire.read_deployments(b"") == []


NOT_UTF8 = b"\x12\x04\x0a\x02\xff\xfe"
TRUNCATED = b"\x12\x7f\x0a"
WRONG_TYPE = b"\x15" + struct.pack("<f", 0.5) + b"\x0b"
LONG_VARINT = b"\x0a" + b"\xff" * 11


@pytest.mark.parametrize("data", [NOT_UTF8, TRUNCATED, WRONG_TYPE, LONG_VARINT, b"\x00\x00", b"{}", b"<html>"])
def test_bytes_that_are_no_response_are_refused(data: bytes) -> None:
    with pytest.raises(wire.DecodeError):
        wire.read_response(data)
