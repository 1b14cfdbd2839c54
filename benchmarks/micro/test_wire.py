"""Serializing inputs and parsing answers, per request of 200 hash-only or 6 raw frames."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from athena_async import wire
from athena_async.emulator.sink import answer_request
from benchmarks import inputs

HEAD = wire.request_head("micro")
HASH_ONLY = [wire.Payload(b"", md5=(digest,)) for digest in inputs.digests(200)]
FRAMES = [wire.Payload(frame, wire.ImageFormat.RAW_UINT8_BGR) for frame in inputs.frames()]
KINDS = pytest.mark.parametrize("payloads", [HASH_ONLY, FRAMES], ids=["200 hash-only", "6 raw frames"])


def frames_of(payloads: list[wire.Payload]) -> list[wire.Frame]:
    return [wire.frame_input("bench", f"{i:024d}", payload) for i, payload in enumerate(payloads)]


@KINDS
def test_frame_inputs(benchmark: BenchmarkFixture, payloads: list[wire.Payload]) -> None:
    assert len(benchmark(frames_of, payloads)) == len(payloads)


@KINDS
def test_join_request(benchmark: BenchmarkFixture, payloads: list[wire.Payload]) -> None:
    frames = frames_of(payloads)
    assert len(benchmark(wire.join_request, HEAD, frames)) > sum(frame.size_bytes for frame in frames)


@KINDS
def test_read_response(benchmark: BenchmarkFixture, payloads: list[wire.Payload]) -> None:
    response = answer_request(wire.join_request(HEAD, frames_of(payloads)))[0]
    assert len(benchmark(wire.read_response, response).answers) == len(payloads)
