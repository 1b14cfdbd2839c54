"""Asks a service whose name nobody knows: run by `test_network` where no name server can be reached."""

from __future__ import annotations

import asyncio
import json

from athena_async import AthenaClient
from tests.faults.world import config, inputs


async def main() -> None:
    async with AthenaClient(config("athena.invalid:443", timeout_s=3.0)) as client:
        started_s = asyncio.get_running_loop().time()
        results = await client.classify_many(inputs(20))
        waited_s = asyncio.get_running_loop().time() - started_s
    print(json.dumps([[r.outcome, str(r.error and r.error.code), r.attempts, str(r.error)] for r in results]))
    print(waited_s)


if __name__ == "__main__":
    asyncio.run(main())
