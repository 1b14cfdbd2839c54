"""The public API in the hands of a typed program: checked by `mypy --strict`, never run."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, assert_type

import athena_async
from athena_async import (
    AthenaClient,
    AthenaError,
    BatchingConfig,
    BreakerConfig,
    Classification,
    ClassificationError,
    ClassificationResult,
    ClientClosedError,
    ClientConfig,
    ClientStats,
    ConfigError,
    CredentialsError,
    DeploymentInfo,
    DrainReport,
    ErrorCode,
    ImageInput,
    LimitsConfig,
    MissingExtraError,
    OAuthConfig,
    Outcome,
    PoolConfig,
    PreprocessConfig,
    RetryConfig,
    RpcError,
    TlsConfig,
)


def configure() -> ClientConfig:
    return ClientConfig(
        endpoints=("first:443", "second:443"),
        affiliate="acme",
        deployment_id=None,
        oauth=OAuthConfig(client_id="id", client_secret="secret"),
        tls=TlsConfig(ca="ca.pem", cert=Path("client.pem"), key=Path("client.key"), server_name="athena"),
        timeout_s=120,
        keepalive_interval_s=10.0,
        pool=PoolConfig(channels=2, max_channels=8, balancer="least_loaded"),
        batching=BatchingConfig(max_images=50, max_bytes=2**21, target_latency_s=0.5, linger_s=0.005, fixed_size=None),
        preprocess=PreprocessConfig(
            resize=True,
            resampling="antialias",
            resizer="auto",
            encoding="webp",
            hashes=("md5", "sha1"),
            threads=None,
            isolation="process",
        ),
        retry=RetryConfig(),
        breaker=BreakerConfig(),
        limits=LimitsConfig(max_in_flight=1000, max_in_flight_bytes=2**26, images_per_second=None),
    )


def configured_elsewhere(environ: Mapping[str, str]) -> None:
    assert_type(ClientConfig.from_env(), ClientConfig)
    assert_type(ClientConfig.from_env(environ, timeout_s=5.0), ClientConfig)
    assert_type(ClientConfig.from_file("athena.toml"), ClientConfig)
    assert_type(ClientConfig.from_file(Path("athena.toml"), affiliate="acme"), ClientConfig)
    assert_type(AthenaClient.from_env(affiliate="acme"), AthenaClient)
    assert_type(AthenaClient.from_file(Path("athena.toml")), AthenaClient)


async def every_method(frame: Any, picture: Any) -> None:
    async with AthenaClient(configure()) as client:
        assert_type(client, AthenaClient)
        assert_type(await client.classify(b"bytes of a file"), ClassificationResult)
        assert_type(await client.classify_single(Path("a.jpg")), ClassificationResult)
        mixed = [b"", bytearray(), memoryview(b""), "a.jpg", Path("b.png"), picture, frame, ImageInput(data=b"")]
        assert_type(await client.classify_many(mixed), list[ClassificationResult])
        assert_type(await client.list_deployments(), list[DeploymentInfo])
        assert_type(client.stats(), ClientStats)
        assert_type(await client.aclose(drain_timeout_s=5.0), DrainReport)


async def sources_of_images(client: AthenaClient) -> None:
    def files() -> Iterator[Path]:
        yield from Path().glob("*.jpg")

    async def queue() -> AsyncIterator[bytes]:
        yield b""

    assert_type(await client.classify_many(files()), list[ClassificationResult])
    assert_type(await client.classify_many(queue()), list[ClassificationResult])
    async for result in client.stream(files(), window=100):
        assert_type(result, ClassificationResult)
    async with aclosing(client.stream(queue())) as results:
        async for result in results:
            assert_type(result, ClassificationResult)
    async with aclosing(client.foreign_results()) as foreign:
        async for result in foreign:
            assert_type(result.index, int)


def one_result(result: ClassificationResult) -> None:
    assert_type(result.correlation_id, str)
    assert_type(result.index, int)
    assert_type(result.outcome, Outcome)
    assert_type(result.classifications, tuple[Classification, ...])
    assert_type(result.error, ClassificationError | None)
    assert_type(result.attempts, int)
    assert_type(result.latency_s, float)
    assert_type(result.ok, bool)
    assert_type(result.scores, Mapping[str, float])
    assert_type(result.top, Classification | None)
    assert_type(result.pcsam, float | None)
    assert_type(result.entropy, float | None)
    assert_type(result.known_match, bool)
    assert_type(result.raise_for_error(), ClassificationResult)
    for label, weight in result.classifications:
        assert_type((label, weight), tuple[str, float])


def each_outcome(result: ClassificationResult) -> str:
    """A match over the outcomes is exhaustive: mypy would ask for a return otherwise."""
    match result.outcome:
        case Outcome.CLASSIFIED:
            return "scores"
        case Outcome.FAILED:
            return "error"
        case Outcome.UNKNOWN:
            return "perhaps billed"


def one_image() -> list[ImageInput]:
    return [
        ImageInput(data=io.BytesIO().getbuffer(), correlation_id="row-1", affiliate="acme"),
        ImageInput(path=Path("a.jpg"), md5="0" * 32),
        ImageInput(md5=["0" * 32, "1" * 32], sha1=("0" * 40,)),
    ]


async def errors(client: AthenaClient) -> None:
    try:
        await client.classify(b"")
    except ClassificationError as error:
        assert_type(error.code, ErrorCode)
        assert_type(error.message, str)
        assert_type(error.retryable, bool)
        assert_type(error.correlation_id, str | None)
    except RpcError as error:
        assert_type(error.code, ErrorCode)
    except ConfigError as error:
        assert_type((error.field, error.allowed), tuple[str, str])
    except (ClientClosedError, CredentialsError, MissingExtraError) as error:
        root: AthenaError = error
        raise root from None


async def main() -> int:
    return 0


def run_it() -> None:
    assert_type(athena_async.run(main()), int)
    assert_type(asyncio.run(main()), int)
