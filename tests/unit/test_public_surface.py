"""The names that users may rely on. A change here is a change for them, and belongs in the changelog."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import types

import pytest

import athena_async
from athena_async import AthenaClient, AthenaError, ClassificationResult, ClientConfig, ErrorCode, ImageInput, Outcome

NAMES = {
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
}

METHODS = {
    "aclose": ("drain_timeout_s",),
    "classify": ("image",),
    "classify_many": ("images",),
    "classify_single": ("image",),
    "foreign_results": (),
    "from_env": ("overrides",),
    "from_file": ("path", "overrides"),
    "list_deployments": (),
    "stats": (),
    "stream": ("images", "window"),
}

FIELDS = {
    ClassificationResult: ["correlation_id", "index", "outcome", "classifications", "error", "attempts", "latency_s"],
    ImageInput: ["data", "path", "correlation_id", "affiliate", "md5", "sha1"],
}

CONFIG = {
    "endpoints": (),
    "affiliate": (),
    "deployment_id": (),
    "api_key": (),
    "api_key_file": (),
    "oauth": (),
    "tls": (),
    "allow_plaintext_credentials": (),
    "allow_grpc_trace": (),
    "timeout_s": (),
    "keepalive_interval_s": (),
    "pool": ("channels", "max_channels", "balancer"),
    "batching": ("max_images", "max_bytes", "target_latency_s", "linger_s", "fixed_size"),
    "preprocess": ("resize", "resampling", "resizer", "encoding", "hashes", "threads", "max_pixels", "isolation"),
    "retry": (),
    "breaker": (),
    "limits": ("max_in_flight", "max_in_flight_bytes", "images_per_second"),
}

ERRORS = {
    "ClassificationError",
    "ClientClosedError",
    "ConfigError",
    "CredentialsError",
    "MissingExtraError",
    "RpcError",
}


def test_package_exports_these_names_in_order() -> None:
    assert set(athena_async.__all__) == NAMES
    assert athena_async.__all__ == sorted(athena_async.__all__)


def test_package_shows_nothing_else() -> None:
    public = {name for name in vars(athena_async) if not name.startswith("_")}
    others = {name for name in public - NAMES if not isinstance(getattr(athena_async, name), types.ModuleType)}
    assert others == set()


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_each_name_is_explained(name: str) -> None:
    explained = inspect.getdoc(getattr(athena_async, name)) or ""
    # A dataclass without a docstring gets its signature for one.
    assert explained
    assert not explained.startswith(f"{name}(")


def test_client_has_these_methods() -> None:
    methods = {
        name: tuple(key for key in inspect.signature(method).parameters if key != "self")
        for name, method in inspect.getmembers(AthenaClient, callable)
        if not name.startswith("_")
    }
    assert methods == METHODS


@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_method_is_explained(name: str) -> None:
    assert inspect.getdoc(getattr(AthenaClient, name))


@pytest.mark.parametrize(
    "name", ["classify", "classify_many", "classify_single", "stream", "foreign_results", "aclose"]
)
def test_methods_that_wait_say_what_cancellation_does(name: str) -> None:
    assert "Cancellation" in (inspect.getdoc(getattr(AthenaClient, name)) or "")


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_records_have_these_fields_in_order(record: type) -> None:
    assert [field.name for field in dataclasses.fields(record)] == FIELDS[record]


def test_configuration_has_these_fields() -> None:
    config = ClientConfig()
    assert [field.name for field in dataclasses.fields(config)] == list(CONFIG)
    for part, names in CONFIG.items():
        if names:
            assert set(names) <= {field.name for field in dataclasses.fields(getattr(config, part))}


def test_every_configuration_part_is_frozen_slotted_and_keyword_only() -> None:
    for name in NAMES:
        if name.endswith("Config"):
            part = getattr(athena_async, name)
            assert part.__dataclass_params__.frozen, name
            assert "__slots__" in vars(part), name
            assert all(field.kw_only for field in dataclasses.fields(part)), name


def test_every_error_has_one_root() -> None:
    exported = {
        name
        for name in NAMES
        if inspect.isclass(getattr(athena_async, name)) and issubclass(getattr(athena_async, name), AthenaError)
    }
    assert exported == ERRORS | {"AthenaError"}


def test_outcomes_are_three() -> None:
    assert [outcome.value for outcome in Outcome] == ["CLASSIFIED", "FAILED", "UNKNOWN"]


@pytest.mark.parametrize(
    "error",
    [
        athena_async.ClassificationError(ErrorCode.MODEL_ERROR, "later", correlation_id="a", retryable=False),
        athena_async.ConfigError("pool.channels", 0, "1 or more"),
        athena_async.MissingExtraError("parquet output", "parquet"),
        athena_async.RpcError(ErrorCode.UNAVAILABLE, "no endpoint"),
        athena_async.CredentialsError("no token", retryable=True),
        athena_async.ClientClosedError("closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: AthenaError) -> None:
    """Results cross process boundaries with their errors inside."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
