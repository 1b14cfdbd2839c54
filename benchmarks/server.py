"""The server that all peers are measured against: the emulator's sink, in a process of its own.

By itself it answers at once. ``python -m benchmarks.server '{"fixed_s": 0.02}'`` gives it the costs of a
`ServiceModel`; with ``"parallelism": 1`` one model works through the requests in the order of their arrival. The
benchmark may change its pace while it runs, one JSON object a line on standard input: see `Pace`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from athena_async.emulator import Emulator, EmulatorConfig, ServiceModel
from benchmarks import children

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_DRIFT_STEP_S = 0.02


@dataclass(slots=True)
class Pace:
    """How the costs of a model change: all are multiplied by ``factor``, times ``drift``.

    A drift rises from 1 to ``drift_factor`` within ``drift_s`` seconds of the command and stays there. While
    ``hang`` is not 0, nothing is answered.
    """

    factor: float = 1.0
    drift_factor: float = 1.0
    drift_s: float = 0.0
    hang: float = 0.0

    def model(self, base: ServiceModel, passed_s: float) -> ServiceModel:
        """The model ``passed_s`` seconds after the last command."""
        part = min(1.0, passed_s / self.drift_s) if self.drift_s else 1.0
        scale = self.factor * (1.0 + (self.drift_factor - 1.0) * part)
        return replace(base, fixed_s=base.fixed_s * scale, per_image_s=base.per_image_s * scale)


class Server:
    """An emulator that heeds commands."""

    def __init__(self, model: ServiceModel) -> None:
        self._base = model
        self._pace = Pace()
        self._commanded = asyncio.Event()
        self._emulator = Emulator(EmulatorConfig(port=0, sink=True, max_message_bytes=_MAX_MESSAGE_BYTES, model=model))

    def command(self, changes: children.Command) -> None:
        """Changes fields of the pace, and begins a drift anew."""
        self._pace = replace(self._pace, **changes)
        self._commanded.set()

    async def serve(self, announce: Callable[[int], None]) -> None:
        """Serves until cancelled."""
        async with self._emulator as emulator:
            announce(emulator.port)
            while True:
                await self._commanded.wait()
                self._commanded.clear()
                if self._pace.hang:
                    emulator.hold()
                else:
                    emulator.release()
                await self._keep_pace(emulator)

    async def _keep_pace(self, emulator: Emulator) -> None:
        """Sets the model until a drift is over, or something else is commanded."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        while not self._commanded.is_set():
            passed_s = loop.time() - begin_s
            emulator.model = self._pace.model(self._base, passed_s)
            if passed_s >= self._pace.drift_s:
                return
            await asyncio.sleep(_DRIFT_STEP_S)


def main() -> None:
    server = Server(ServiceModel(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))
    children.run(server.serve, server.command)


if __name__ == "__main__":
    main()
