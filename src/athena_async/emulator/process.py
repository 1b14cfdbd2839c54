"""An emulator in a process of its own, for programs without an event loop: tests, demos, benchmarks.

Needs nothing but the standard library on this side.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from athena_async.errors import AthenaError, ConfigError

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0


class EmulatorProcess:
    """A running emulator. Ends with its context; one that does not end by SIGTERM is killed.

        with EmulatorProcess(api_keys=["key"]) as emulator:
            ...  # connect to emulator.address

    Args:
        fields: fields of `athena_async.emulator.EmulatorConfig`, as JSON has them. The admin endpoint is
            always there.

    Raises:
        EmulatorStartError: the emulator did not start; says what it said.
    """

    def __init__(self, **fields: Any) -> None:
        command = [sys.executable, "-m", "athena_async.emulator", json.dumps({"admin_port": 0, **fields}, default=str)]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.addresses: Mapping[str, str] = self._read_addresses()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """``host:port`` of the gRPC service."""
        return self.addresses["grpc"]

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def oauth_url(self) -> str | None:
        return self.addresses.get("oauth")

    @property
    def admin_url(self) -> str:
        return self.addresses["admin"]

    @property
    def ca(self) -> str | None:
        """The PEM file of the test CA; None without TLS."""
        return self.addresses.get("ca")

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to the admin endpoint; see `athena_async.emulator.admin`.

        Raises:
            ConfigError: it refuses; says why.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data else {}
        request = urllib.request.Request(self.admin_url + path, data, headers, method=method)  # noqa: S310 - loopback
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_STOP_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                reason = json.load(error)["error"]
            raise ConfigError(f"{method} {path}", body, reason) from None

    def audit(self) -> list[dict[str, Any]]:
        """The audit records in memory, oldest first."""
        rows: list[dict[str, Any]] = []
        after = 0
        while True:
            page = self.ask("GET", f"/audit?after={after}")
            rows += page["records"]
            after = page["next"]
            if not page["records"] or after >= page["total"]:
                return rows

    def set_faults(self, **changes: Any) -> None:
        """Changes fields of the fault plan in force."""
        self.ask("PATCH", "/faults", changes)

    def inject(self, kind: str, times: int = 1) -> None:
        """Deals a fault on the next ``times`` occasions."""
        self.ask("POST", f"/faults/{kind}", {"times": times})

    def reset(self) -> None:
        """No faults, the fastest model, nothing held, no audit in memory: as after the start."""
        self.ask("PUT", "/faults", {})
        self.ask("PUT", "/model", {})
        self.ask("POST", "/release")
        self.ask("DELETE", "/audit")

    def stop(self) -> int:
        """Ends the process; returns its exit code. A second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return self._process.returncode

    def kill(self) -> None:
        """Ends the process at once, as a crash does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read_addresses(self) -> dict[str, str]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        timer = threading.Timer(_START_TIMEOUT_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise EmulatorStartError(self._process.stderr.read().strip() or "it said nothing")
        # What the process says later must not fill the pipe and stop it.
        threading.Thread(target=self._process.stderr.read, daemon=True, name="athena-emulator-stderr").start()
        addresses: dict[str, str] = json.loads(line)
        return addresses

    def __repr__(self) -> str:
        state = "running" if self._process.poll() is None else f"ended with {self._process.returncode}"
        return f"EmulatorProcess({self.address}, {state})"


class EmulatorStartError(AthenaError):
    """The emulator's process ended before it was ready."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the emulator did not start: {reason}")
