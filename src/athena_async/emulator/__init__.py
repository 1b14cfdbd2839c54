"""A local Athena that behaves as the service does: for tests, for development, for judging clients.

It shares the wire contract with the client of this package and nothing else. Names are resolved on
first use, so that importing the package, as pytest does with the plugin, loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from athena_async.emulator.audit import AuditLog, AuditRecord
    from athena_async.emulator.clock import Clock, ManualClock, ScaledClock
    from athena_async.emulator.config import Behaviour, EmulatorConfig
    from athena_async.emulator.deployments import Deployment, Deployments
    from athena_async.emulator.faults import FaultKind, FaultPlan, Faults
    from athena_async.emulator.model import ServiceModel
    from athena_async.emulator.server import Emulator

__all__ = [
    "AuditLog",
    "AuditRecord",
    "Behaviour",
    "Clock",
    "Deployment",
    "Deployments",
    "Emulator",
    "EmulatorConfig",
    "FaultKind",
    "FaultPlan",
    "Faults",
    "ManualClock",
    "ScaledClock",
    "ServiceModel",
]

_HOMES = {
    "AuditLog": "audit",
    "AuditRecord": "audit",
    "Behaviour": "config",
    "Clock": "clock",
    "Deployment": "deployments",
    "Deployments": "deployments",
    "Emulator": "server",
    "EmulatorConfig": "config",
    "FaultKind": "faults",
    "FaultPlan": "faults",
    "Faults": "faults",
    "ManualClock": "clock",
    "ScaledClock": "clock",
    "ServiceModel": "model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
