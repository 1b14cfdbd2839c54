"""Configuration of the emulator: frozen values, validated when they are made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from athena_async import _check as check
from athena_async.config import DEFAULT_AUDIENCE, MiB
from athena_async.emulator.faults import FaultPlan
from athena_async.emulator.model import ServiceModel
from athena_async.errors import ConfigError

Classes = Literal["benign", "live"]
DuplicatePolicy = Literal["reject", "accept"]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Where the service's documentation leaves room: our choices, and how to choose otherwise.

    Attributes:
        strict_format: data must be of the format that it is said to be; otherwise any readable image will do.
        duplicate_ids: an id that is unanswered in its deployment is answered CORRELATION_ID_INVALID, or taken.
        share_global_errors: a global error goes to any stream of the deployment in place of the one that asked.
        outputs_per_response: outputs that one response holds at most; None answers a request with one response.
        classes: names of the model's classes.
        stream_idle_timeout_s: a stream without any request for so long is ended with UNAVAILABLE; None never.
    """

    strict_format: bool = True
    duplicate_ids: DuplicatePolicy = "reject"
    share_global_errors: bool = False
    outputs_per_response: int | None = None
    classes: Classes = "benign"
    stream_idle_timeout_s: float | None = None

    def __post_init__(self) -> None:
        check.choice("behaviour.duplicate_ids", self.duplicate_ids, get_args(DuplicatePolicy))
        check.choice("behaviour.classes", self.classes, get_args(Classes))
        if self.outputs_per_response is not None:
            check.count("behaviour.outputs_per_response", self.outputs_per_response, 1)
        if self.stream_idle_timeout_s is not None:
            check.positive("behaviour.stream_idle_timeout_s", self.stream_idle_timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """Everything an `Emulator` needs to know.

    Without keys and OAuth clients nobody is asked for a token, and all callers are one client.

    Attributes:
        host: address to listen on; a loopback address unless you know better.
        port: of the gRPC service; 0 picks one.
        tls_dir: where the test CA and the server's certificate are, or are written to; None serves plaintext.
        mtls: clients must show a certificate of the test CA (``client.pem``, ``client.key`` in ``tls_dir``).
        api_keys: static bearer tokens, ``KEY`` or ``CLIENT=KEY``; keys of the same client name are one client.
        affiliates: who may be named in an input: names for every client, or a mapping from client (``*``: all) to
            names; None permits every name that is not empty.
        oauth_port: of the token endpoint; 0 picks one, None has none.
        oauth_tls: the token endpoint speaks HTTPS, with the certificate of ``tls_dir``.
        oauth_clients: client id to secret.
        audience: the only one that tokens are issued for and accepted with.
        token_lifetime_s: on the emulator's clock.
        admin_port: of the admin endpoint; 0 picks one, None has none.
        known_hashes: file with made-up hashes that count as known.
        expected_outputs: test-case file whose images, found in ``images`` beside it, get the weights written there.
        audit_path: file that audit records are appended to, as JSON lines.
        audit_limit: records kept in memory.
        time_scale: how fast lifetimes run.
        max_message_bytes: the largest message that is received.
        max_image_bytes: the largest image, before and after decompression.
        max_unanswered: inputs of one deployment beyond which its streams are not read on.
        max_processing_bytes: bytes of requests in work beyond which no stream is read on.
        model: how fast the service is.
        faults: what goes wrong.
        behaviour: where the documentation leaves room.
        sink: answers every input at once with a canned classification, unread; for benchmarks.
        server_options: further gRPC channel arguments of the server.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_dir: PathLike | None = None
    mtls: bool = False
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    affiliates: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    oauth_port: int | None = None
    oauth_tls: bool = False
    oauth_clients: Mapping[str, str] = field(default_factory=dict, repr=False)
    audience: str = DEFAULT_AUDIENCE
    token_lifetime_s: float = 3600.0
    admin_port: int | None = None
    known_hashes: PathLike | None = None
    expected_outputs: PathLike | None = None
    audit_path: PathLike | None = None
    audit_limit: int = 250_000
    time_scale: float = 1.0
    max_message_bytes: int = 4 * MiB
    max_image_bytes: int = 3 * MiB
    max_unanswered: int = 100_000
    max_processing_bytes: int = 64 * MiB
    model: ServiceModel = field(default_factory=ServiceModel)
    faults: FaultPlan = field(default_factory=FaultPlan)
    behaviour: Behaviour = field(default_factory=Behaviour)
    sink: bool = False
    server_options: tuple[tuple[str, int | str], ...] = ()

    def __post_init__(self) -> None:
        check.text("host", self.host)
        for name in ("port", "oauth_port", "admin_port"):
            if getattr(self, name) is not None:
                check.count(name, getattr(self, name), 0, 65535)
        for name in ("max_message_bytes", "max_image_bytes", "max_unanswered", "max_processing_bytes", "audit_limit"):
            check.count(name, getattr(self, name), 1)
        check.positive("token_lifetime_s", self.token_lifetime_s)
        check.positive("time_scale", self.time_scale)
        self._check_credentials()
        for name in ("known_hashes", "expected_outputs"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigError(name, os.fspath(path), "a readable file")

    def _check_credentials(self) -> None:
        check.text("audience", self.audience)
        api_keys: object = self.api_keys
        if isinstance(api_keys, str):
            raise ConfigError("api_keys", "(not shown)", "a sequence of keys")
        for key in self.api_keys:
            check.secret("api_keys", key)
        for client_id, secret in self.oauth_clients.items():
            check.text("oauth_clients", client_id)
            check.secret(f"oauth_clients[{client_id}]", secret)
        if self.oauth_port is not None and not self.oauth_clients:
            raise ConfigError("oauth_clients", "empty", "at least one client, since oauth_port is set")
        affiliates: object = self.affiliates
        if isinstance(affiliates, str):
            raise ConfigError("affiliates", affiliates, "a sequence of names")
        for name in ("mtls", "oauth_tls"):
            if getattr(self, name) and self.tls_dir is None:
                raise ConfigError("tls_dir", None, f"set, since {name} is")
