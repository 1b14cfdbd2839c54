"""Where the time of one image goes, stage by stage.

Each stage is a function of the client, called alone and timed. gRPC's reads and writes are what a hand-rolled stream
costs on the loop, at the batch size that ours chose. What the whole run costs beyond all this, by the processor time
of the loop's thread and of the process, is the client's bookkeeping (with what colder caches cost it, which a function
called over and over does not pay), and the work of gRPC's threads. Requests are joined from memory that is out of the
near caches into fresh memory, as in a run.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from athena_async import AthenaClient, wire
from athena_async.config import PoolConfig, PreprocessConfig
from athena_async.emulator.sink import answer_request
from athena_async.images.inputs import to_source
from athena_async.images.render import render_bytes
from benchmarks import children, hand_rolled, inputs, ours
from benchmarks.measure import OURS, Figure, Report, Row, Scale
from benchmarks.table import number

CONFIG = PreprocessConfig(encoding="none")
GRPC, REST_LOOP, REST_THREADS = "gRPC's reads and writes", "bookkeeping on the loop", "gRPC's and other threads"

_REQUESTS_IN_FLIGHT = 8

Stages = dict[str, float]
"""Microseconds per image."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is classified, what of it goes over the wire, and what it costs in preprocessing threads."""

    name: str
    images: Sequence[Any]
    payload: wire.Payload
    in_threads: Stages


async def run(scale: Scale) -> Report:
    report = Report(series={"stages": {}})
    frames, jpegs = inputs.frames(), inputs.jpegs(1280, 960)
    digests = inputs.digests(scale.pick(100_000, 6_000))
    raw = wire.Payload(frames[0], wire.ImageFormat.RAW_UINT8_BGR)
    kinds = (
        Kind("hash-only", ours.hash_only(digests), wire.Payload(b"", md5=digests[:1]), {}),
        Kind("raw frame", ours.arrays(inputs.repeated(frames, scale.pick(1200, 240))), raw, {}),
        Kind("JPEG 1280x960", inputs.repeated(jpegs, scale.pick(400, 48)), raw, _photograph_stages(jpegs)),
    )
    for kind in kinds:
        async with children.start("benchmarks.server") as server:
            report.rows.append(await _profile(kind, server.endpoint, report.series["stages"]))
    return report


async def _profile(kind: Kind, endpoint: str, series: dict[str, Stages]) -> Row:
    whole_us, loop_us, batch = await _processor_time(endpoint, kind.images)
    on_loop = {
        "take in": _time_us(functools.partial(to_source, kind.images[0])),
        **_wire_stages([kind.payload] * batch),
        GRPC: await _grpc_us(endpoint, [kind.payload] * batch, len(kind.images)),
    }
    stages = series[f"{kind.name}, us"] = {
        **kind.in_threads,
        **on_loop,
        REST_LOOP: max(0.0, loop_us - sum(on_loop.values())),
        REST_THREADS: max(0.0, whole_us - loop_us - sum(kind.in_threads.values())),
    }
    figures = {OURS: Figure((whole_us,)), "of it on the loop": Figure((loop_us,))}
    note = ", ".join(f"{stage} {number(value)}" for stage, value in stages.items())
    return Row("stages", f"{kind.name}, processor time", "us", figures, (), f"{note}; batches of {batch}")


async def _processor_time(endpoint: str, images: Sequence[Any]) -> tuple[float, float, int]:
    """Microseconds per image, of the whole process and of the event loop's thread; images in a mean batch."""
    observed = ours.Observed()
    async with AthenaClient(ours.config(endpoint, preprocess=CONFIG), observers=[observed]) as client:
        await ours.classify_many(client, images[: len(images) // 4])
        observed.clear()
        process_s, thread_s = time.process_time(), time.thread_time()
        await ours.classify_many(client, images)
        whole_s, loop_s = time.process_time() - process_s, time.thread_time() - thread_s
    batch = max(1, round(len(images) / max(1, len(observed.answered))))
    return whole_s / len(images) * 1e6, loop_s / len(images) * 1e6, batch


async def _grpc_us(endpoint: str, payloads: list[wire.Payload], count: int) -> float:
    """Microseconds per image that a hand-rolled stream costs on the loop, parsing left out as far as it goes."""
    (message,) = hand_rolled.requests(payloads, len(payloads))
    messages = [message] * max(1, count // len(payloads))
    async with hand_rolled.connections(endpoint, PoolConfig().channels) as channels:
        await hand_rolled.stream(channels, messages[: len(messages) // 4])
        thread_s = time.thread_time()
        await hand_rolled.stream(channels, messages)
        return (time.thread_time() - thread_s) / len(messages) / len(payloads) * 1e6


def _wire_stages(payloads: list[wire.Payload]) -> Stages:
    """What each input of one request costs on its way out and back."""
    head, count = wire.request_head("stages"), len(payloads)
    frames = [wire.frame_input("bench", f"{i:022d}", payload) for i, payload in enumerate(payloads)]
    response = answer_request(wire.join_request(head, frames))[0]
    return {
        "serialize": _time_us(lambda: wire.frame_input("bench", "0" * 22, payloads[0])),
        "join": _join_us(head, payloads),
        "parse": _time_us(lambda: wire.read_response(response)) / count,
    }


def _join_us(head: bytes, payloads: list[wire.Payload]) -> float:
    """Microseconds per input: requests of several MB in turn, each kept for as long as it would be with gRPC."""
    requests = itertools.cycle(
        [
            wire.frame_input("bench", f"{i:022d}", payload._replace(data=bytes(bytearray(payload.data))))
            for i, payload in enumerate(payloads)
        ]
        for _ in range(_REQUESTS_IN_FLIGHT)
    )
    written = deque[bytes](maxlen=_REQUESTS_IN_FLIGHT)
    return _time_us(lambda: written.append(wire.join_request(head, next(requests)))) / len(payloads)


def _photograph_stages(jpegs: Sequence[bytes]) -> Stages:
    """Mean over the photographs, in one thread."""
    import cv2
    import numpy as np

    def over(function: Callable[[bytes], object]) -> float:
        return sum(_time_us(functools.partial(function, jpeg)) for jpeg in jpegs) / len(jpegs)

    decode = over(lambda jpeg: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    return {
        "hash": over(lambda jpeg: (hashlib.md5(jpeg).hexdigest(), hashlib.sha1(jpeg).hexdigest())),
        "decode": decode,
        "resize and the rest": over(lambda jpeg: render_bytes(jpeg, CONFIG, "none")) - decode,
    }


def _time_us(function: Callable[[], object]) -> float:
    """Microseconds of one call: the least of several means."""
    once_s = _mean_s(function, 1)
    count = max(1, int(0.01 / max(once_s, 1e-7)))
    return min(_mean_s(function, count) for _ in range(5)) * 1e6


def _mean_s(function: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count
