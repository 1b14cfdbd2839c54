"""Certificates on disk: broken ones are named, rotated ones noticed. And tracers that print tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from athena_async.auth.tls import (
    TELLING_TRACERS,
    FileWatch,
    channel_options,
    check_grpc_trace,
    load_channel_credentials,
)
from athena_async.config import TlsConfig
from athena_async.errors import ConfigError, CredentialsError
from tests.waits import soon

pytestmark = pytest.mark.anyio

CA = trustme.CA()
POLL_S = 0.005


@dataclass
class Files:
    """A configured set of files, and fresh pairs to replace them with."""

    folder: Path

    def __post_init__(self) -> None:
        CA.cert_pem.write_to_path(self.folder / "ca.pem")
        self.cert.write_bytes(b"")
        self.rotate()

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def config(self) -> TlsConfig:
        return self.config_in(self.folder)

    @staticmethod
    def config_in(folder: Path) -> TlsConfig:
        return TlsConfig(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")

    @staticmethod
    def pair() -> tuple[bytes, bytes]:
        leaf = CA.issue_cert("client.example")
        return b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()

    def rotate(self) -> None:
        cert, key = self.pair()
        self.replace(self.cert, cert)
        self.replace(self.key, key)

    def replace(self, path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_plaintext_and_default_roots() -> None:
    assert await load_channel_credentials(False) is None
    assert isinstance(await load_channel_credentials(True), grpc.ChannelCredentials)


async def test_files_are_loaded(files: Files) -> None:
    for config in (TlsConfig(), TlsConfig(ca=files.config.ca), files.config):
        assert isinstance(await load_channel_credentials(config), grpc.ChannelCredentials)


async def test_comments_between_certificates_are_no_fault(files: Files) -> None:
    roots = files.folder / "ca.pem"
    roots.write_bytes("# Főtanúsítvány\n".encode() + roots.read_bytes() + b"\nanother\n" + roots.read_bytes())
    await load_channel_credentials(files.config)


def test_the_server_name_is_a_channel_option() -> None:
    assert channel_options(True) == channel_options(False) == channel_options(TlsConfig()) == ()
    assert channel_options(TlsConfig(server_name="a.example")) == (("grpc.ssl_target_name_override", "a.example"),)


PEM_HEAD = b"-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ca.pem", b"", r"tls\.ca .*ca\.pem holds no valid PEM certificates"),
        ("ca.pem", b"\xff\xfe garbage", "holds no valid PEM certificates"),
        ("ca.pem", PEM_HEAD + b"canary-cert", "holds no valid PEM certificates"),
        ("cert.pem", b"", r"tls\.cert .*cert\.pem holds no valid PEM certificates"),
        ("key.pem", b"canary-key", r"tls\.key .*key\.pem cannot be used \(.*BEGIN PRIVATE KEY"),
        ("key.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary-key", "has a password: .*openssl pkey"),
        ("key.pem", Files.pair()[1], r"cert\.pem and tls\.key .*key\.pem do not belong together"),
    ],
)
async def test_a_broken_file_is_named_with_its_remedy(files: Files, name: str, content: bytes, words: str) -> None:
    (files.folder / name).write_bytes(content)
    with pytest.raises(CredentialsError, match=words) as caught:
        await load_channel_credentials(files.config)
    assert "canary" not in str(caught.value)


async def test_a_truncated_chain_is_refused(files: Files) -> None:
    whole = files.cert.read_bytes()
    files.cert.write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(CredentialsError, match="whole blocks"):
        await load_channel_credentials(files.config)


async def test_a_missing_file_is_named(files: Files) -> None:
    config = files.config
    files.key.unlink()
    with pytest.raises(CredentialsError, match=r"tls\.key .*key\.pem cannot be read: No such file"):
        await load_channel_credentials(config)


async def still_waiting(task: asyncio.Task[None]) -> bool:
    """Whether a watch holds its peace for several looks."""
    await asyncio.sleep(20 * POLL_S)
    return not task.done()


async def test_a_rotation_is_told_once(files: Files) -> None:
    watch = FileWatch(files.config, poll_s=POLL_S)
    waiting = asyncio.create_task(watch.wait_changed())
    assert await still_waiting(waiting)
    files.rotate()
    await soon(waiting)
    again = asyncio.create_task(watch.wait_changed())
    assert await still_waiting(again)
    again.cancel()


async def test_a_change_between_two_waits_is_told_by_the_next(files: Files) -> None:
    watch = FileWatch(files.config, poll_s=POLL_S)
    files.rotate()
    await soon(watch.wait_changed())


async def test_a_half_written_pair_is_waited_out(files: Files) -> None:
    watch = FileWatch(files.config, poll_s=POLL_S)
    waiting = asyncio.create_task(watch.wait_changed())
    cert, key = files.pair()
    files.replace(files.cert, cert)
    assert await still_waiting(waiting)
    assert "do not belong together" in (watch.problem or "")
    files.key.write_bytes(key[: len(key) // 2])
    assert await still_waiting(waiting)
    files.key.write_bytes(key)
    await soon(waiting)
    assert watch.problem is None
    await load_channel_credentials(files.config)


async def test_a_vanished_and_a_broken_file_are_waited_out(files: Files) -> None:
    config = files.config
    watch = FileWatch(config, poll_s=POLL_S)
    waiting = asyncio.create_task(watch.wait_changed())
    (files.folder / "ca.pem").unlink()
    assert await still_waiting(waiting)
    (files.folder / "ca.pem").write_bytes(PEM_HEAD)
    assert await still_waiting(waiting)
    CA.cert_pem.write_to_path(files.folder / "ca.pem")
    await soon(waiting)


async def test_a_swapped_link_is_a_rotation(tmp_path: Path) -> None:
    """As orchestrators mount secrets: each file is a link through a folder that is itself a link."""
    mount, link = tmp_path / "mount", tmp_path / "current"
    mount.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Files(tmp_path / name)
    link.symlink_to("one")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (mount / name).symlink_to(link / name)
    watch = FileWatch(Files.config_in(mount), poll_s=POLL_S)
    waiting = asyncio.create_task(watch.wait_changed())
    assert await still_waiting(waiting)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    await soon(waiting)


async def test_without_files_nothing_changes() -> None:
    waiting = asyncio.create_task(FileWatch(TlsConfig(server_name="x"), poll_s=POLL_S).wait_changed())
    assert await still_waiting(waiting)
    waiting.cancel()


@pytest.mark.parametrize(
    "value",
    [
        "api",
        "http,api",
        "all",
        "*",
        "a*",
        "?pi",
        "chttp2*",
        "secure_endpoint",
        "tcp",
        "event_engine*",
        "*,-api",
        "-api,*",
        "-*,api",
        "*,-api,-chttp2_hpack_parser",
    ],
)
def test_a_trace_that_prints_tokens_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="GRPC_TRACE is .* must be without .*, which print tokens") as caught:
        check_grpc_trace({"GRPC_TRACE": value})
    assert caught.value.field == "GRPC_TRACE"
    check_grpc_trace({"GRPC_TRACE": value}, allow=True)


@pytest.mark.parametrize(
    "value", ["", "http", "call_error,connectivity_state", "api,-*", "api,-api", " api", "API", "[a]pi", "-all", "apis"]
)
def test_other_traces_are_not(value: str) -> None:
    check_grpc_trace({"GRPC_TRACE": value})
    check_grpc_trace({})


def test_all_but_the_telling_ones_may_be_on() -> None:
    check_grpc_trace({"GRPC_TRACE": ",".join(["all", *(f"-{name}" for name in TELLING_TRACERS)])})
