"""No credentials, one key, and a key in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from athena_async.auth.credentials import (
    KeyFile,
    NoCredentials,
    StaticKey,
    bearer,
    credentials_from_config,
)
from athena_async.auth.oauth2 import ClientCredentialsSource
from athena_async.config import ClientConfig, OAuthConfig
from athena_async.errors import CredentialsError
from athena_async.events import CredentialsRefreshed, Event
from tests.waits import soon

pytestmark = pytest.mark.anyio

CANARY = "canary-3d52-key"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f" {CANARY}\n")
    return path


async def never(credentials: NoCredentials | StaticKey) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await credentials.wait_changed()


async def test_the_configuration_chooses() -> None:
    oauth = OAuthConfig(client_id="x", client_secret="y")
    assert isinstance(credentials_from_config(ClientConfig()), NoCredentials)
    assert isinstance(credentials_from_config(ClientConfig(api_key="k")), StaticKey)
    assert isinstance(credentials_from_config(ClientConfig(api_key_file="f")), KeyFile)
    assert isinstance(credentials_from_config(ClientConfig(oauth=oauth)), ClientCredentialsSource)


async def test_without_credentials_nothing_is_sent_until_the_service_asks() -> None:
    credentials = NoCredentials()
    assert await credentials.metadata() == ()
    await never(credentials)
    credentials.refused(())
    with pytest.raises(CredentialsError, match="set api_key") as caught:
        await credentials.metadata()
    assert not caught.value.retryable


async def test_a_static_key_refused_once_stays_refused() -> None:
    credentials = StaticKey(CANARY)
    metadata = await credentials.metadata()
    assert metadata == (("authorization", f"Bearer {CANARY}"),)
    await never(credentials)
    credentials.refused(bearer("another"))
    assert await credentials.metadata() == metadata
    credentials.refused(metadata)
    with pytest.raises(CredentialsError, match="refuses the api_key") as caught:
        await credentials.metadata()
    assert not caught.value.retryable
    assert CANARY not in repr(credentials) + str(caught.value)


async def test_a_key_file_is_read_again_when_it_changed(path: Path) -> None:
    clock, seen = Clock(), list[Event]()
    credentials = KeyFile(path, poll_s=1.0, clock=clock, emit=seen.append)
    assert await credentials.metadata() == bearer(CANARY)
    path.write_text("another-key")
    assert await credentials.metadata() == bearer(CANARY), "looked again before its time"
    clock.now += 1.0
    assert await credentials.metadata() == bearer("another-key")
    assert [type(event) for event in seen] == [CredentialsRefreshed]


async def test_a_changed_key_file_ends_the_wait(path: Path) -> None:
    credentials = KeyFile(path, poll_s=0.01)
    waiting = asyncio.create_task(credentials.wait_changed())
    assert await credentials.metadata() == bearer(CANARY)
    path.touch()
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the same key again is no change"
    replacement = path.with_name("key.new")
    replacement.write_text("another-key")
    replacement.replace(path)
    await soon(waiting)
    assert await credentials.metadata() == bearer("another-key")


async def test_a_change_between_two_waits_is_told_by_the_next(path: Path) -> None:
    credentials = KeyFile(path, poll_s=0.001)
    await credentials.metadata()
    path.write_text("another-key")
    async with asyncio.timeout(5.0):
        while await credentials.metadata() == bearer(CANARY):
            await asyncio.sleep(0.001)
    await soon(credentials.wait_changed())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await credentials.wait_changed()


@pytest.mark.parametrize("halfway", ["", "\n", "two words\x00", "k" * 20_000])
async def test_a_key_file_in_the_midst_of_a_rotation_leaves_the_last_key(path: Path, halfway: str) -> None:
    clock = Clock()
    credentials = KeyFile(path, clock=clock)
    await credentials.metadata()
    path.write_text(halfway)
    clock.now += 1.0
    assert await credentials.metadata() == bearer(CANARY)
    path.unlink()
    clock.now += 1.0
    assert await credentials.metadata() == bearer(CANARY)
    path.write_text("another-key")
    clock.now += 1.0
    assert await credentials.metadata() == bearer("another-key")


async def test_a_key_file_without_a_key_is_named(tmp_path: Path) -> None:
    clock = Clock()
    credentials = KeyFile(tmp_path / "key", clock=clock)
    with pytest.raises(CredentialsError, match=r"key cannot be read: No such file") as caught:
        await credentials.metadata()
    assert caught.value.retryable
    (tmp_path / "key").write_text(f"{CANARY}\n{CANARY}\n")
    clock.now += 1.0
    with pytest.raises(CredentialsError, match="must hold one key") as caught:
        await credentials.metadata()
    assert CANARY not in str(caught.value)


async def test_a_refused_key_is_read_again_at_once_and_else_final_until_the_file_changes(path: Path) -> None:
    clock = Clock()
    credentials = KeyFile(path, clock=clock)
    metadata = await credentials.metadata()
    path.write_text("another-key")
    credentials.refused(metadata)
    assert await credentials.metadata() == bearer("another-key"), "not looked at again though the time had not come"
    credentials.refused(metadata)
    assert await credentials.metadata() == bearer("another-key"), "an old refusal has counted against the new key"
    credentials.refused(bearer("another-key"))
    with pytest.raises(CredentialsError, match="refuses the key in") as caught:
        await credentials.metadata()
    assert not caught.value.retryable
    path.write_text("third-key")
    clock.now += 1.0
    assert await credentials.metadata() == bearer("third-key")


async def test_a_cancelled_caller_leaves_the_others_whole(path: Path) -> None:
    credentials = KeyFile(path)
    calls = [asyncio.create_task(credentials.metadata()) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [bearer(CANARY)] * 9


async def test_no_repr_shows_a_key(path: Path) -> None:
    credentials = KeyFile(path)
    await credentials.metadata()
    assert CANARY not in repr(credentials)
    assert repr(credentials).endswith("read, changes=0)")
