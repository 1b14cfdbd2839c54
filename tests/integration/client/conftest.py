"""A client on a socket of an emulator that answers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from athena_async import AthenaClient
from tests.integration.client.world import service


@pytest.fixture
async def client() -> AsyncIterator[AthenaClient]:
    async with service() as (client, _):
        yield client
