"""Where the time of one image goes, stage by stage.

Each stage is a function of the client, called alone and timed. What the whole run costs beyond them, by the
processor time of the event loop's thread and of the process, is the loop's own work and that of gRPC's threads.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from athena_async import AthenaClient, wire
from athena_async.config import PreprocessConfig
from athena_async.emulator.sink import answer_request
from athena_async.images.inputs import to_source
from athena_async.images.render import render_bytes
from benchmarks import children, inputs, ours
from benchmarks.measure import OURS, Figure, Report, Row, Scale

CONFIG = PreprocessConfig(encoding="none")
REST_LOOP, REST_THREADS = "the rest on the loop", "gRPC's and other threads"

Stages = dict[str, float]
"""Microseconds per image."""


async def run(scale: Scale) -> Report:
    report = Report(series={"stages": {}})
    frames, jpegs = inputs.frames(), inputs.jpegs(1280, 960)
    digests = inputs.digests(scale.pick(100_000, 20_000))
    raw = wire.Payload(frames[0], wire.ImageFormat.RAW_UINT8_BGR)
    kinds: list[tuple[str, Sequence[Any], Stages, Stages]] = [
        ("hash-only", ours.hash_only(digests), {}, _wire_stages([wire.Payload(b"", md5=(digests[0],))] * 200)),
        ("raw frame", ours.arrays(inputs.repeated(frames, scale.pick(1200, 300))), {}, _wire_stages([raw] * 6)),
        (
            "JPEG 1280x960",
            inputs.repeated(jpegs, scale.pick(400, 80)),
            _photograph_stages(jpegs),
            _wire_stages([raw] * 6),
        ),
    ]
    for name, images, in_threads, on_wire in kinds:
        on_loop = {"take in": _time_us(functools.partial(to_source, images[0])), **on_wire}
        async with children.start("benchmarks.server") as server:
            whole_us, loop_us = await _processor_time(server.endpoint, images)
        stages = {
            **in_threads,
            **on_loop,
            REST_LOOP: max(0.0, loop_us - sum(on_loop.values())),
            REST_THREADS: max(0.0, whole_us - loop_us - sum(in_threads.values())),
        }
        report.series["stages"][f"{name}, us"] = stages
        note = ", ".join(f"{stage} {value:.3g}" for stage, value in stages.items())
        report.rows.append(
            Row(
                "stages",
                f"{name}, processor time",
                "us",
                {OURS: Figure((whole_us,)), "of it on the loop": Figure((loop_us,))},
                (),
                note,
            )
        )
    return report


async def _processor_time(endpoint: str, images: Sequence[Any]) -> tuple[float, float]:
    """Microseconds per image: of the whole process, and of the event loop's thread."""
    async with AthenaClient(ours.config(endpoint, preprocess=CONFIG)) as client:
        await ours.classify_many(client, images[: len(images) // 4])
        process_s, thread_s = time.process_time(), time.thread_time()
        await ours.classify_many(client, images)
        whole_s, loop_s = time.process_time() - process_s, time.thread_time() - thread_s
    return whole_s / len(images) * 1e6, loop_s / len(images) * 1e6


def _wire_stages(payloads: list[wire.Payload]) -> Stages:
    """What each input of one request costs on its way out and back."""
    head, count = wire.request_head("stages"), len(payloads)
    frames = [wire.frame_input("bench", f"{i:022d}", payload) for i, payload in enumerate(payloads)]
    response = answer_request(wire.join_request(head, frames))[0]
    return {
        "serialize": _time_us(lambda: wire.frame_input("bench", "0" * 22, payloads[0])),
        "join": _time_us(lambda: wire.join_request(head, frames)) / count,
        "parse": _time_us(lambda: wire.read_response(response)) / count,
    }


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
