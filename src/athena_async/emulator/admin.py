"""The admin endpoint: looks into a running emulator and changes its faults and its speed.

    GET  /                     what there is
    GET  /stats                streams, deployments, audit by outcome, faults dealt
    GET  /audit                the records in memory; ?after=N skips the first N ever written
    DELETE /audit              forgets the records in memory
    GET  /faults               the plan, and what it has dealt
    PATCH /faults              changes fields of the plan; PUT puts a whole plan in force
    POST /faults/KIND          deals the fault on the next occasion; {"times": N}
    GET, PUT, PATCH /model     the service model
    POST /hold, /release       keeps answers back, and gives them out
    POST /streams/drop         ends every open stream; {"code": "UNAVAILABLE"}
    POST /goaway               tells every connection to go away
    POST /tokens/revoke        lets no token issued so far count any more
    POST /clock/advance        moves a manual clock; {"seconds": N}

It asks for no credentials: it is for loopback addresses. What a web page sends changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, Protocol, get_args
from urllib.parse import parse_qs

import grpc

from athena_async.emulator.audit import AuditLog
from athena_async.emulator.clock import Clock, ManualClock
from athena_async.emulator.deployments import Deployments
from athena_async.emulator.faults import FaultKind, Faults
from athena_async.emulator.http import Request, Response
from athena_async.emulator.model import ServiceModel
from athena_async.emulator.settings import part_from
from athena_async.errors import ConfigError

_MAX_RECORDS = 10_000


class Administered(Protocol):
    """What the endpoint needs of an emulator."""

    model: ServiceModel

    @property
    def audit(self) -> AuditLog: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def deployments(self) -> Deployments: ...
    @property
    def faults(self) -> Faults: ...
    @property
    def live_streams(self) -> int: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def drop_streams(self, code: str = "UNAVAILABLE") -> int: ...
    def revoke_tokens(self) -> None: ...
    async def go_away(self) -> None: ...


class AdminEndpoint:
    """Answers the requests of the admin server."""

    def __init__(self, emulator: Administered) -> None:
        self._emulator = emulator
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[object]]] = {
            ("GET", "/"): self._index,
            ("GET", "/stats"): self._stats,
            ("GET", "/audit"): self._audit,
            ("DELETE", "/audit"): self._clear_audit,
            ("GET", "/faults"): self._faults,
            ("PATCH", "/faults"): self._change_faults,
            ("PUT", "/faults"): self._set_faults,
            ("GET", "/model"): self._model,
            ("PATCH", "/model"): self._change_model,
            ("PUT", "/model"): self._set_model,
            ("POST", "/hold"): self._hold,
            ("POST", "/release"): self._release,
            ("POST", "/streams/drop"): self._drop_streams,
            ("POST", "/goaway"): self._go_away,
            ("POST", "/tokens/revoke"): self._revoke_tokens,
            ("POST", "/clock/advance"): self._advance_clock,
        }
        for kind in get_args(FaultKind):
            self._routes["POST", f"/faults/{kind}"] = self._inject

    async def handle(self, request: Request) -> Response:
        """Routes a request; 400 with the reason where it asks for what cannot be."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            known = any(path == request.path for _, path in self._routes)
            return Response(405 if known else 404, {"error": f"no {request.method} {request.path} here"})
        if request.method != "GET" and "origin" in request.headers:
            return Response(403, {"error": "requests of web pages change nothing here"})
        if request.body and request.content_type != "application/json":
            return Response(415, {"error": "the body must be application/json"})
        try:
            return Response(200, await route(request))
        except ConfigError as error:
            return Response(400, {"error": str(error)})

    async def _index(self, _request: Request) -> object:
        return {"routes": [f"{method} {path}" for method, path in self._routes]}

    async def _stats(self, _request: Request) -> object:
        emulator = self._emulator
        return {
            "now": emulator.clock.now(),
            "live_streams": emulator.live_streams,
            "deployments": [
                {
                    "client": found.client,
                    "deployment_id": found.deployment_id,
                    "backlog": found.backlog,
                    "kept": found.kept_count,
                    "expired": found.expired_count,
                    "streams": found.stream_count,
                }
                for found in emulator.deployments.all()
            ],
            "audit": {
                "total": emulator.audit.total,
                "billed": emulator.audit.billed_count,
                "outcomes": emulator.audit.outcomes(),
            },
            "faults": emulator.faults.as_mapping()["dealt"],
        }

    async def _audit(self, request: Request) -> object:
        audit = self._emulator.audit
        try:
            after = int(parse_qs(request.query).get("after", ["0"])[0])
        except ValueError:
            raise ConfigError("after", request.query, "a whole number") from None
        records = islice(audit, max(0, after - audit.dropped), max(0, after - audit.dropped) + _MAX_RECORDS)
        rows = [asdict(record) for record in records]
        return {"records": rows, "next": max(after, audit.dropped) + len(rows), "total": audit.total}

    async def _clear_audit(self, _request: Request) -> object:
        self._emulator.audit.clear()
        return {}

    async def _faults(self, _request: Request) -> object:
        return self._emulator.faults.as_mapping()

    async def _change_faults(self, request: Request) -> object:
        self._emulator.faults.update(**_body(request))
        return self._emulator.faults.as_mapping()

    async def _set_faults(self, request: Request) -> object:
        self._emulator.faults.plan = part_from("faults", _body(request))
        return self._emulator.faults.as_mapping()

    async def _inject(self, request: Request) -> object:
        kind: Any = request.path.rpartition("/")[2]
        self._emulator.faults.inject(kind, _body(request).get("times", 1))
        return self._emulator.faults.as_mapping()

    async def _model(self, _request: Request) -> object:
        return asdict(self._emulator.model)

    async def _change_model(self, request: Request) -> object:
        changes = _body(request)
        part_from("model", changes)  # names the field that does not exist
        self._emulator.model = replace(self._emulator.model, **changes)
        return asdict(self._emulator.model)

    async def _set_model(self, request: Request) -> object:
        self._emulator.model = part_from("model", _body(request))
        return asdict(self._emulator.model)

    async def _hold(self, _request: Request) -> object:
        self._emulator.hold()
        return {}

    async def _release(self, _request: Request) -> object:
        self._emulator.release()
        return {}

    async def _drop_streams(self, request: Request) -> object:
        return {"dropped": self._emulator.drop_streams(str(_body(request).get("code", "UNAVAILABLE")))}

    async def _go_away(self, _request: Request) -> object:
        await self._emulator.go_away()
        return {}

    async def _revoke_tokens(self, _request: Request) -> object:
        self._emulator.revoke_tokens()
        return {}

    async def _advance_clock(self, request: Request) -> object:
        clock = self._emulator.clock
        if not isinstance(clock, ManualClock):
            raise ConfigError("clock", clock, "a ManualClock; this one runs by itself")
        clock.advance(_body(request).get("seconds", 0.0))
        return {"now": clock.now()}


def status_code(name: str) -> grpc.StatusCode:
    """The gRPC status of a name.

    Raises:
        ConfigError: there is none, or it is OK.
    """
    allowed = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    if name not in allowed:
        raise ConfigError("code", name, "one of " + ", ".join(allowed))
    return grpc.StatusCode[name]


def _body(request: Request) -> Mapping[str, Any]:
    try:
        values = json.loads(request.body or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigError("body", "(not shown)", "a JSON object")
    return values
