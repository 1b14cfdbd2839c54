"""Servers that take their time: ``python -m benchmarks.profiles --fixed-s 0.02``, each in a process of its own.

One model works through the requests of all streams in the order of their arrival. What a request costs is a `Cost`,
which the benchmark may change while the server runs, one JSON object a line on its standard input:
``{"factor": 20}`` makes it 20 times slower, ``{"hang": 1}`` makes it stop answering.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass, fields

import grpc

from athena_async import wire
from athena_async.emulator.sink import answer_request, answer_single
from benchmarks import children

_TIMER_S = 0.01
"""How late a timer may fire for the next request to be taken as begun when it should have."""


@dataclass(slots=True)
class Cost:
    """Seconds that the model takes for a request, all 0 unless given.

    ``fixed_s`` for any request and ``per_item_s`` for each of its inputs; each input past ``knee`` takes
    ``per_item_over_s`` more. All of it is multiplied by ``factor``, which rises to ``drift_factor`` times itself
    within ``drift_s`` seconds of ``drift_from_s`` (the server's clock), and stays there.
    ``hang``: unless 0, nothing is answered until it is 0 again.
    """

    fixed_s: float = 0.0
    per_item_s: float = 0.0
    knee: float = 0.0
    per_item_over_s: float = 0.0
    factor: float = 1.0
    drift_factor: float = 1.0
    drift_s: float = 0.0
    drift_from_s: float = 0.0
    hang: float = 0.0

    def of(self, inputs: int, now_s: float) -> float:
        """Seconds for a request with so many inputs that is begun at ``now_s``."""
        over = max(0.0, inputs - self.knee) if self.knee else 0.0
        base = self.fixed_s + self.per_item_s * inputs + self.per_item_over_s * over
        return base * self.factor * self._drift(now_s)

    def _drift(self, now_s: float) -> float:
        if not self.drift_s:
            return 1.0
        passed = min(1.0, max(0.0, (now_s - self.drift_from_s) / self.drift_s))
        return 1.0 + (self.drift_factor - 1.0) * passed


class Model:
    """Works through requests one by one, taking turns between streams.

    ``_done_at_s`` is when the last request was, or should have been, done: a timer that fired late does not slow
    the model down.
    """

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self._done_at_s = 0.0
        self._turn = asyncio.Lock()
        self._answering = asyncio.Event()
        self._answering.set()

    def change(self, command: children.Command) -> None:
        """Sets fields of the cost. ``drift_s`` begins a drift now."""
        for name, value in command.items():
            setattr(self.cost, name, value)
        if "drift_s" in command:
            self.cost.drift_from_s = asyncio.get_running_loop().time()
        if self.cost.hang:
            self._answering.clear()
        else:
            self._answering.set()

    async def work(self, inputs: int) -> None:
        """Takes the time that a request costs."""
        async with self._turn:
            await self._answering.wait()
            now_s = asyncio.get_running_loop().time()
            begin_s = self._done_at_s if now_s - self._done_at_s < _TIMER_S else now_s
            self._done_at_s = begin_s + self.cost.of(inputs, begin_s)
            await asyncio.sleep(max(0.0, self._done_at_s - now_s))
            await self._answering.wait()

    async def classify(self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """The handler of Classify: reads on while earlier requests are worked on."""
        waiting: asyncio.Queue[bytes] = asyncio.Queue(1000)
        worker = asyncio.ensure_future(self._answer(waiting, context))
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                await waiting.put(request)
            await waiting.put(b"")
            await worker
        finally:
            worker.cancel()

    async def _answer(self, waiting: asyncio.Queue[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        while request := await waiting.get():
            response, inputs = answer_request(request)
            if inputs:
                await self.work(inputs)
                await context.write(response)

    async def classify_single(self, request: bytes, _context: object) -> bytes:
        """The handler of ClassifySingle."""
        await self.work(1)
        return answer_single(request)

    async def list_deployments(self, _request: bytes, _context: object) -> bytes:
        """The handler of ListDeployments: hangs with the model, and names no deployment."""
        await self._answering.wait()
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description="A server whose requests cost time.")
    for part in fields(Cost):
        parser.add_argument(f"--{part.name.replace('_', '-')}", type=float, default=part.default)
    model = Model(Cost(**vars(parser.parse_args())))

    async def serve(announce: children.Announce) -> None:
        handlers = {
            "Classify": grpc.stream_stream_rpc_method_handler(model.classify),
            "ClassifySingle": grpc.unary_unary_rpc_method_handler(model.classify_single),
            "ListDeployments": grpc.unary_unary_rpc_method_handler(model.list_deployments),
        }
        await children.serve_handlers(wire.SERVICE, handlers, announce)

    children.run(serve, model.change)


if __name__ == "__main__":
    main()
