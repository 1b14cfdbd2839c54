"""An asyncio client that keeps thousands of images in flight to Athena, and gives each exactly one result.

async with AthenaClient(ClientConfig(endpoints=("host:443",), affiliate="acme", api_key="...")) as client:
    results = await client.classify_many(images)
"""

from athena_async._run import run
from athena_async._version import __version__
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
