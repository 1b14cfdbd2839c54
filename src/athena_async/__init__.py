"""An asyncio client that keeps thousands of images in flight to Athena, and gives each exactly one result.

async with AthenaClient(ClientConfig(endpoints=("host:443",), affiliate="acme", api_key="...")) as client:
    results = await client.classify_many(images)

Names are resolved on first use, so that a program that needs only a part, such as the command line before it has chosen
how gRPC logs, or pytest with the emulator's plugin, loads only that.
"""

import importlib
import typing

from athena_async._version import __version__

if typing.TYPE_CHECKING:
    from athena_async._run import run
    from athena_async.client import AthenaClient
    from athena_async.config import (
        BatchingConfig,
        BreakerConfig,
        ClientConfig,
        LimitsConfig,
        OAuthConfig,
        PoolConfig,
        PreprocessConfig,
        RetryConfig,
        TlsConfig,
    )
    from athena_async.errors import (
        AthenaError,
        ClassificationError,
        ClientClosedError,
        ConfigError,
        CredentialsError,
        ErrorCode,
        MissingExtraError,
        RpcError,
    )
    from athena_async.images.inputs import ImageInput
    from athena_async.results import Classification, ClassificationResult, DeploymentInfo, DrainReport, Outcome
    from athena_async.stats import ClientStats

__all__ = [
    "AthenaClient",
    "AthenaError",
    "BatchingConfig",
    "BreakerConfig",
    "Classification",
    "ClassificationError",
    "ClassificationResult",
    "ClientClosedError",
    "ClientConfig",
    "ClientStats",
    "ConfigError",
    "CredentialsError",
    "DeploymentInfo",
    "DrainReport",
    "ErrorCode",
    "ImageInput",
    "LimitsConfig",
    "MissingExtraError",
    "OAuthConfig",
    "Outcome",
    "PoolConfig",
    "PreprocessConfig",
    "RetryConfig",
    "RpcError",
    "TlsConfig",
    "__version__",
    "run",
]

_HOMES = {
    "AthenaClient": "client",
    "ClientStats": "stats",
    "ImageInput": "images.inputs",
    "run": "_run",
    **dict.fromkeys(
        (
            "AthenaError",
            "ClassificationError",
            "ClientClosedError",
            "ConfigError",
            "CredentialsError",
            "ErrorCode",
            "MissingExtraError",
            "RpcError",
        ),
        "errors",
    ),
    **dict.fromkeys(
        ("Classification", "ClassificationResult", "DeploymentInfo", "DrainReport", "Outcome"),
        "results",
    ),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'config')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
