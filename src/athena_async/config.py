"""Configuration: frozen values, validated when they are made.

`ClientConfig` is made of small parts, each with defaults that suit most programs. A wrong value
raises `ConfigError` naming field, value and what is allowed. `ClientConfig.from_env` and
`from_file` read the same fields from the environment and from TOML (see `athena_async.settings`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from athena_async import _check as check
from athena_async.errors import ConfigError

DEFAULT_ENDPOINT = "api.athena-risk-intelligence.com:443"
DEFAULT_AUTH_URL = "https://crispthinking.auth0.com/oauth/token"
DEFAULT_AUDIENCE = "crisp-athena-live"

IMAGE_SIDE = 448
RAW_FRAME_BYTES = IMAGE_SIDE * IMAGE_SIDE * 3
MAX_ID_LENGTH = 64
# A raw frame, with room for the ids and hashes that go with it.
_LEAST_BATCH_BYTES = RAW_FRAME_BYTES + 16 * 1024

Balancer = Literal["round_robin", "random", "weighted", "least_loaded"]
Resampling = Literal["bilinear", "antialias"]
Resizer = Literal["auto", "pillow", "opencv"]
EncodingChoice = Literal["auto", "none", "webp", "png", "brotli"]
HashName = Literal["md5", "sha1"]
Isolation = Literal["thread", "process"]

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthConfig:
    """OAuth2 client credentials.

    Attributes:
        client_id: issued by the service.
        client_secret: issued by the service; never shown.
        auth_url: the token endpoint.
        audience: the API the token is for.
        refresh_fraction: a token is renewed once this part of its lifetime is left, 0 to 1.
        timeout_s: bound on one request to the token endpoint.
        body: how the request is sent; ``json`` is what the service's own client does.
        ca: PEM file with the roots of the token endpoint; None takes the system's.
    """

    client_id: str
    client_secret: str = field(repr=False)
    auth_url: str = DEFAULT_AUTH_URL
    audience: str = DEFAULT_AUDIENCE
    refresh_fraction: float = 0.25
    timeout_s: float = 10.0
    body: Literal["json", "form"] = "json"
    ca: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check.text("oauth.client_id", self.client_id)
        check.secret("oauth.client_secret", self.client_secret)
        check.address("oauth.auth_url", self.auth_url)
        check.text("oauth.audience", self.audience)
        check.between("oauth.refresh_fraction", self.refresh_fraction, 0.0, 1.0, open_ends=True)
        check.positive("oauth.timeout_s", self.timeout_s)
        check.choice("oauth.body", self.body, ("json", "form"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS towards the service. All files are PEM, and are read again when they change on disk.

    Attributes:
        ca: roots to trust; None takes gRPC's own.
        cert, key: the client's certificate chain and private key (mutual TLS); both or neither.
        server_name: the name expected in the server's certificate, where it is not the endpoint's.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            missing, given = ("tls.key", "tls.cert") if self.key is None else ("tls.cert", "tls.key")
            raise ConfigError(missing, None, f"given together with {given}")
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"tls.{name}", os.fspath(path), "a readable PEM file")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """The channel pool. Counts are per endpoint; each channel has a TCP connection of its own.

    Attributes:
        channels: channels held per endpoint while there is work.
        max_channels: how far the pool may grow per endpoint on unacknowledged bytes.
        balancer: which channel gets the next batch.
        weights: relative share of each endpoint, for ``weighted``; 1.0 where not named.
        grow_unacked_bytes: bytes sent and unanswered on every channel of an endpoint that make it grow.
        connect_timeout_s: bound on opening one stream.
        idle_timeout_s: a stream without images for so long is closed; 0 keeps streams open.
        max_age_s: a channel is renewed at about this age (20 % jitter), so that backends that were added behind its
            name get traffic; of several addresses each channel takes one by chance; 0 never.
        ping_interval_s, ping_timeout_s: HTTP/2 keep-alive while a stream is open; a dead peer is
            noticed after their sum; a link must be able to carry the largest image in that time.
        silence_timeout_s: a channel with unanswered images and no answer for so long is taken for stuck.
        probe_interval_s: ListDeployments is asked this often as health probe while an endpoint is
            ejected or images wait after a disconnect.
    """

    channels: int = 2
    max_channels: int = 8
    balancer: Balancer = "round_robin"
    weights: Mapping[str, float] = field(default_factory=dict)
    grow_unacked_bytes: int = 8 * MiB
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 300.0
    max_age_s: float = 1800.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 5.0
    silence_timeout_s: float = 30.0
    probe_interval_s: float = 1.0

    def __post_init__(self) -> None:
        check.count("pool.channels", self.channels, 1, 64)
        check.count("pool.max_channels", self.max_channels, self.channels, 64)
        check.choice("pool.balancer", self.balancer, get_args(Balancer))
        for endpoint, weight in self.weights.items():
            check.positive(f"pool.weights[{endpoint}]", weight)
        check.count("pool.grow_unacked_bytes", self.grow_unacked_bytes, 1)
        check.positive("pool.connect_timeout_s", self.connect_timeout_s)
        check.not_negative("pool.idle_timeout_s", self.idle_timeout_s)
        check.not_negative("pool.max_age_s", self.max_age_s)
        check.between("pool.ping_interval_s", self.ping_interval_s, 1.0, 7200.0)
        check.between("pool.ping_timeout_s", self.ping_timeout_s, 0.1, 7200.0)
        check.positive("pool.silence_timeout_s", self.silence_timeout_s)
        check.positive("pool.probe_interval_s", self.probe_interval_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingConfig:
    """The adaptive batcher.

    Attributes:
        max_images: no batch holds more images.
        max_bytes: no batch is larger on the wire; an image that alone would be is an IMAGE_TOO_LARGE
            error, which resized images never are. gRPC servers refuse messages over 4 MiB unless told otherwise.
        target_latency_s: 95 % of batches should be answered within this many seconds.
        linger_s: how long an image may wait for company while another batch is in flight; an
            image never waits when nothing is in flight.
        fixed_size: always this many images a batch; None adapts.
        max_batches_in_flight: batches that one endpoint may have unanswered.
    """

    max_images: int = 200
    max_bytes: int = 4 * MiB - 64 * 1024
    target_latency_s: float = 1.0
    linger_s: float = 0.005
    fixed_size: int | None = None
    max_batches_in_flight: int = 16

    def __post_init__(self) -> None:
        check.count("batching.max_images", self.max_images, 1, 10_000)
        check.count("batching.max_bytes", self.max_bytes, 1024)
        check.positive("batching.target_latency_s", self.target_latency_s)
        check.not_negative("batching.linger_s", self.linger_s)
        check.optional(check.count, "batching.fixed_size", self.fixed_size, 1, self.max_images)
        check.count("batching.max_batches_in_flight", self.max_batches_in_flight, 1, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """From a file's bytes to what is sent.

    Attributes:
        resize: decode and resize to 448x448 BGR. Off, an image must already be 448x448 and is
            sent untouched in its own format.
        resampling: ``bilinear`` gives the official client's pixels; ``antialias`` is faster for
            large JPEGs and smoother, but scores may differ from the official client's.
        resizer: ``auto`` takes OpenCV where installed and Pillow elsewhere (at most 1 level apart).
        encoding: lossless compression of the pixels. ``auto`` sends raw while the link keeps up
            and lossless WebP when images wait for the network.
        hashes: which hashes of the original bytes are sent along.
        threads: worker threads (or processes); None takes the number of usable cores.
        max_pixels: larger images are an INVALID_IMAGE error, decided before decoding.
        max_file_bytes: larger files are an INVALID_IMAGE error, decided before reading.
        isolation: ``process`` decodes in worker processes with limits, so that a decoder that
            crashes, hangs or eats memory costs one image.
        worker_memory_bytes, worker_cpu_s: the limits of one isolated worker (``process`` only);
            the second is per image.
    """

    resize: bool = True
    resampling: Resampling = "bilinear"
    resizer: Resizer = "auto"
    encoding: EncodingChoice = "auto"
    hashes: tuple[HashName, ...] = ("md5", "sha1")
    threads: int | None = None
    max_pixels: int = 100_000_000
    max_file_bytes: int = 256 * MiB
    isolation: Isolation = "thread"
    worker_memory_bytes: int = 2048 * MiB
    worker_cpu_s: float = 10.0

    def __post_init__(self) -> None:
        check.choice("preprocess.resampling", self.resampling, get_args(Resampling))
        check.choice("preprocess.resizer", self.resizer, get_args(Resizer))
        check.choice("preprocess.encoding", self.encoding, get_args(EncodingChoice))
        check.choice("preprocess.isolation", self.isolation, get_args(Isolation))
        for name in self.hashes:
            check.choice("preprocess.hashes", name, get_args(HashName))
        check.optional(check.count, "preprocess.threads", self.threads, 1, 256)
        check.count("preprocess.max_pixels", self.max_pixels, IMAGE_SIDE * IMAGE_SIDE)
        check.count("preprocess.max_file_bytes", self.max_file_bytes, 1024)
        check.count("preprocess.worker_memory_bytes", self.worker_memory_bytes, 256 * MiB)
        check.positive("preprocess.worker_cpu_s", self.worker_cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """When an image is sent again. Every resend may be billed.

    Attributes:
        max_attempts: sends of one image, the first included, whatever the reason.
        model_error_retries: resends after MODEL_ERROR, within ``max_attempts``.
        base_s, cap_s: attempt n waits a random time up to ``min(cap_s, base_s * 2**n)`` ("full jitter").
        budget_ratio: resends that each first send earns, so that retries never add more load than this.
        budget_images: resends the budget holds when full, and starts with; None takes
            ``limits.max_in_flight``, so that one disconnect can always be made good.
        grace_min_s, grace_max_s: after a disconnect the deployment's answers are awaited for four
            times the usual latency within these bounds, and for as long as its backlog is not empty.
        at_most_once: never send an image twice; what is unanswered after a disconnect is UNKNOWN.
    """

    max_attempts: int = 3
    model_error_retries: int = 2
    base_s: float = 0.1
    cap_s: float = 10.0
    budget_ratio: float = 0.1
    budget_images: int | None = None
    grace_min_s: float = 0.5
    grace_max_s: float = 30.0
    at_most_once: bool = False

    def __post_init__(self) -> None:
        check.count("retry.max_attempts", self.max_attempts, 1, 10)
        check.count("retry.model_error_retries", self.model_error_retries, 0, 10)
        check.positive("retry.base_s", self.base_s)
        check.between("retry.cap_s", self.cap_s, self.base_s, 3600.0)
        check.between("retry.budget_ratio", self.budget_ratio, 0.0, 1.0)
        check.optional(check.count, "retry.budget_images", self.budget_images, 0)
        check.positive("retry.grace_min_s", self.grace_min_s)
        check.between("retry.grace_max_s", self.grace_max_s, self.grace_min_s, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Circuit breaker and outlier ejection, per endpoint.

    Attributes:
        failures: consecutive failures that open the breaker.
        ejection_base_s, ejection_max_s: time in OPEN, doubled with each ejection, with jitter.
        outlier_factor: from 5 endpoints on, one whose latency per image exceeds the median by this
            factor is ejected.
        panic_fraction: with fewer endpoints healthy than this part, all are used.
    """

    failures: int = 3
    ejection_base_s: float = 5.0
    ejection_max_s: float = 300.0
    outlier_factor: float = 5.0
    panic_fraction: float = 0.5

    def __post_init__(self) -> None:
        check.count("breaker.failures", self.failures, 1, 1000)
        check.positive("breaker.ejection_base_s", self.ejection_base_s)
        check.between("breaker.ejection_max_s", self.ejection_max_s, self.ejection_base_s, 86_400.0)
        check.between("breaker.outlier_factor", self.outlier_factor, 1.0, 1000.0)
        check.between("breaker.panic_fraction", self.panic_fraction, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Bounds on what the client holds; producers wait when one is reached.

    Attributes:
        max_in_flight: images accepted and not yet settled.
        max_in_flight_bytes: their bytes, originals and prepared frames together.
        images_per_second: a rate that is never exceeded; None has no limit.
        foreign_results: answers to other clients that are kept for `AthenaClient.foreign_results`.
    """

    max_in_flight: int = 4096
    max_in_flight_bytes: int = 256 * MiB
    images_per_second: float | None = None
    foreign_results: int = 100_000

    def __post_init__(self) -> None:
        check.count("limits.max_in_flight", self.max_in_flight, 1)
        check.count("limits.max_in_flight_bytes", self.max_in_flight_bytes, 2 * MiB)
        check.optional(check.positive, "limits.images_per_second", self.images_per_second)
        check.count("limits.foreign_results", self.foreign_results, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Everything an `AthenaClient` needs to know.

    Attributes:
        endpoints: ``host:port`` of the service; several share the load.
        affiliate: on whose behalf images are classified, unless an image says otherwise.
        deployment_id: 1 to 63 characters shared by the clients that share answers; None makes a unique one.
        api_key: a static bearer token; exclusive with ``api_key_file`` and ``oauth``.
        api_key_file: a file that holds the token; read again when it changes.
        oauth: OAuth2 client credentials.
        tls: True for the system's roots, a `TlsConfig`, or False for plaintext.
        allow_plaintext_credentials: send a token over plaintext to other than loopback addresses.
        allow_grpc_trace: accept a GRPC_TRACE that prints metadata, and so tokens, to stderr.
        timeout_s: deadline of each image, from its acceptance.
        keepalive_interval_s: an empty request is sent on a stream on which nothing was sent for so long, or for four
            intervals of pings where that is less.
    """

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    affiliate: str = "default"
    deployment_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: str | os.PathLike[str] | None = None
    oauth: OAuthConfig | None = None
    tls: bool | TlsConfig = True
    allow_plaintext_credentials: bool = False
    allow_grpc_trace: bool = False
    timeout_s: float = 120.0
    keepalive_interval_s: float = 10.0
    pool: PoolConfig = field(default_factory=PoolConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        endpoints: object = self.endpoints
        if isinstance(endpoints, str):
            object.__setattr__(self, "endpoints", (endpoints,))
        if not self.endpoints:
            raise ConfigError("endpoints", self.endpoints, "at least one 'host:port'")
        for endpoint in self.endpoints:
            check.endpoint("endpoints", endpoint)
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ConfigError("endpoints", self.endpoints, "without duplicates")
        check.text("affiliate", self.affiliate)
        check.optional(check.text, "deployment_id", self.deployment_id, MAX_ID_LENGTH - 1)
        self._check_credentials()
        if not isinstance(self.tls, bool | TlsConfig):
            raise ConfigError("tls", self.tls, "True, False or a TlsConfig")
        check.positive("timeout_s", self.timeout_s)
        check.positive("keepalive_interval_s", self.keepalive_interval_s)
        if self.preprocess.resize and self.batching.max_bytes < _LEAST_BATCH_BYTES:
            allowed = f"at least {_LEAST_BATCH_BYTES}, which a resized image may take (or preprocess.resize=False)"
            raise ConfigError("batching.max_bytes", self.batching.max_bytes, allowed)

    def _check_credentials(self) -> None:
        given = [name for name in ("api_key", "api_key_file", "oauth") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(given[1], "set", f"absent, since {given[0]} is set too: choose one")
        check.optional(check.secret, "api_key", self.api_key)
        if given and not self.allow_plaintext_credentials:
            auth_url = self.oauth.auth_url if self.oauth else None
            check.protected(given[0], self.tls is not False, self.endpoints, auth_url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: object) -> ClientConfig:
        """Reads the variables of `athena_async.settings`; ``overrides`` are fields that win over them.

        Raises:
            ConfigError: naming the variable, its value and what is allowed.
        """
        from athena_async.settings import config_from_env

        return config_from_env(os.environ if environ is None else environ, overrides)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **overrides: object) -> ClientConfig:
        """Reads a TOML file whose keys are the fields, and whose tables are the parts.

        Raises:
            ConfigError: naming the key, its value and what is allowed.
        """
        from athena_async.settings import config_from_file

        return config_from_file(Path(path), overrides)
