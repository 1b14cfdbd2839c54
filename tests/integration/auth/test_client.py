"""The whole client with credentials, against the emulator: renewal and rotation lose nothing, and tell no secret."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import shutil
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("joserfc")
pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from athena_async import AthenaClient, ClientConfig, ImageInput, OAuthConfig, Outcome, TlsConfig
from athena_async.emulator import Emulator
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.events import CredentialsRefreshed, Event, StreamClosed, StreamOpened
from athena_async.observability.logs import LogObserver
from athena_async.observability.metrics import PrometheusObserver
from tests.waits import soon, until

from .conftest import SECRET

pytestmark = pytest.mark.anyio

KEY = "canary-api-key-91d4"


def inputs() -> Iterator[ImageInput]:
    """Hash-only inputs without end."""
    number = 0
    while True:
        yield ImageInput(md5=hashlib.md5(str(number).encode()).hexdigest())
        number += 1


class Traffic:
    """Classifies a few inputs at a time, for as long as the block lasts; then every one must have its answer."""

    def __init__(self, client: AthenaClient) -> None:
        self.client = client
        self.results: list[Outcome] = []
        self.errors: set[str] = set()
        self._stop = False

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        source = inputs()
        while not self._stop:
            for result in await self.client.classify_many([next(source) for _ in range(20)]):
                self.results.append(result.outcome)
                self.errors |= {str(result.error)} if result.error else set()
            await asyncio.sleep(0)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop = True
        if kind is not None:  # the test has failed, and nobody waits for answers
            self._task.cancel()
            return
        await soon(self._task, 12.0, "the last calls did not end")
        assert self.errors == set()
        assert set(self.results) == {Outcome.CLASSIFIED}


async def seen(events: list[Event], kind: type[Event], count: int) -> None:
    """Waits until ``count`` events of a kind were seen."""
    await until(
        lambda: sum(isinstance(event, kind) for event in events) >= count,
        otherwise=f"{count} {kind.__name__} did not come",
    )


def channels(events: list[Event], kind: type[StreamOpened | StreamClosed]) -> set[int]:
    """Whose streams were opened, or closed."""
    return {event.channel_id for event in events if isinstance(event, kind)}


async def replaced(events: list[Event], change: Callable[[], object]) -> None:
    """Makes a change once every channel has a stream; then each must give way to a new one, and lose nothing."""
    await until(lambda: len(channels(events, StreamOpened)) == 2, otherwise="no streams were opened")
    old = channels(events, StreamOpened)
    change()
    await until(lambda: len(channels(events, StreamOpened) - old) == 2, otherwise="the channels were not replaced")
    await until(lambda: channels(events, StreamClosed) >= old, otherwise="the old channels did not end")
    closed = [event for event in events if isinstance(event, StreamClosed)]
    assert {(event.code, event.possibly_sent) for event in closed} == {("OK", 0)}


@pytest.fixture
async def oauth_emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    async with Emulator(
        tls_dir=tmp_path / "tls", oauth_port=0, oauth_tls=True, oauth_clients={"team": SECRET}, token_lifetime_s=1.0
    ) as emulator:
        yield emulator


def oauth_config(emulator: Emulator, **more: object) -> ClientConfig:
    oauth = {"client_id": "team", "client_secret": SECRET, "ca": emulator.ca, "refresh_fraction": 0.5} | more
    return ClientConfig(
        endpoints=(emulator.address,),
        oauth=OAuthConfig(auth_url=f"{emulator.oauth_url}/oauth/token", **oauth),  # type: ignore[arg-type]
        tls=TlsConfig(ca=emulator.ca),
        timeout_s=10.0,
    )


async def test_tokens_are_renewed_under_traffic_and_nothing_is_lost(oauth_emulator: Emulator) -> None:
    events: list[Event] = []
    async with AthenaClient(oauth_config(oauth_emulator), observers=[events.append]) as client, Traffic(client):
        await seen(events, CredentialsRefreshed, 4)
        await seen(events, StreamOpened, 4)
    reasons = [event.reason for event in events if isinstance(event, CredentialsRefreshed)]
    assert reasons[:4] == ["first", *["ahead of expiry"] * 3]


async def test_a_rotated_key_file_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    events: list[Event] = []
    async with Emulator(tls_dir=tmp_path / "tls", api_keys=(f"before={KEY}", "after=another-key")) as emulator:
        config = ClientConfig(
            endpoints=(emulator.address,), api_key_file=path, tls=TlsConfig(ca=emulator.ca), timeout_s=10.0
        )
        async with AthenaClient(config, observers=[events.append]) as client, Traffic(client):
            await replaced(events, functools.partial(path.write_text, "another-key"))
            assert sum(isinstance(event, CredentialsRefreshed) for event in events) == 1
        assert {record.client for record in emulator.audit} == {"before", "after"}
        assert emulator.audit[-1].client == "after"


async def test_a_rotated_client_certificate_loses_nothing(tmp_path: Path) -> None:
    events: list[Event] = []
    async with Emulator(tls_dir=tmp_path / "tls", mtls=True, api_keys=(f"team={KEY}",)) as emulator:
        for name in ("client.pem", "client.key"):
            shutil.copy(tmp_path / "tls" / name, tmp_path / name)

        def rotate() -> None:
            for name in ("client.pem", "client.key"):
                shutil.copy(tmp_path / "tls" / name, tmp_path / "new")
                (tmp_path / "new").replace(tmp_path / name)

        tls = TlsConfig(ca=emulator.ca, cert=tmp_path / "client.pem", key=tmp_path / "client.key")
        config = ClientConfig(endpoints=(emulator.address,), api_key=KEY, tls=tls, timeout_s=10.0)
        async with AthenaClient(config, observers=[events.append]) as client, Traffic(client):
            await replaced(events, rotate)


@pytest.mark.parametrize("credentials", ["api_key", "api_key_file", "oauth"])
@pytest.mark.parametrize("right", [True, False])
async def test_no_output_holds_a_secret_hash_or_image(
    oauth_emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, credentials: str, right: bool
) -> None:
    """All loggers at DEBUG, the traceback, reprs and metrics of a whole run, well and refused."""
    caplog.set_level(logging.DEBUG)
    data = b"P6 8 8 255\n" + b"canary-image-bytes-----".ljust(192, b".")
    registry = CollectorRegistry()
    config = oauth_config(oauth_emulator, client_secret=SECRET if right else SECRET + "-wrong")
    (tmp_path / "key").write_text(KEY)
    given = {"api_key": KEY} if credentials == "api_key" else {"api_key_file": tmp_path / "key"}
    async with Emulator(tls_dir=tmp_path / "tls", api_keys=(f"team={KEY}",) if right else ("team=no",)) as by_key:
        if credentials != "oauth":
            config = ClientConfig(endpoints=(by_key.address,), tls=config.tls, timeout_s=10.0, **given)  # type: ignore[arg-type]
        client = AthenaClient(config, observers=[LogObserver(), PrometheusObserver(registry)])
        async with client:
            (result,) = await client.classify_many([data])
            output = repr(client) + repr(client.stats()) + repr(result)
    assert result.ok == right
    if not right:
        assert isinstance(result.error, ClassificationError)
        assert result.error.code is ErrorCode.UNAUTHENTICATED
        output += "".join(traceback.format_exception(result.error))
    output += caplog.text + repr(config) + generate_latest(registry).decode()
    assert "stream_opened" in caplog.text or not right
    hashes = [getattr(hashlib, name)(data).hexdigest() for name in ("md5", "sha1")]
    for canary in (SECRET, KEY, "eyJ", "Bearer", "canary-image-bytes", *hashes):
        assert canary not in output, canary
