"""A whole client whose interpreter has a broken decoder: run by `test_decoders` as ``decoder_run ISOLATION ACT...``.

For each act it classifies 20 images, one of which makes the decoder act, and prints a line of JSON: outcome, code and
message of every image. The decoder is that of run-length encoded Sun rasters; `test_decoders` registers it.
"""

from __future__ import annotations

import asyncio
import io
import json
import resource
import struct
import sys

from PIL import Image

from athena_async import AthenaClient, PreprocessConfig
from athena_async.emulator import Emulator
from tests.faults.world import config

BAD = 7
COUNT = 20


def raster(act: str) -> bytes:
    """A run-length encoded Sun raster that begins with the act instead of pixels."""
    body = act.encode().ljust(300, b".")
    return struct.pack(">8I", 0x59A66A95, 10, 10, 24, len(body), 2, 0, 0) + body


def picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((160, 120), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


async def main(isolation: str, acts: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    preprocess = PreprocessConfig(
        isolation=isolation,  # type: ignore[arg-type]
        resizer="pillow",
        threads=2,
        worker_cpu_s=0.2,
        worker_memory_bytes=256 * 2**20,
    )
    sound = [picture()] * COUNT
    async with (
        Emulator() as emulator,
        AthenaClient(config(emulator.address, preprocess=preprocess)) as client,
    ):
        for act in acts:
            results = await client.classify_many([*sound[:BAD], raster(act), *sound[BAD + 1 :]])
            print(json.dumps([[r.outcome, r.error and r.error.code, str(r.error)] for r in results]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
