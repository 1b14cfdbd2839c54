from __future__ import annotations

import pytest

from athena_async.cli.exits import exit_for, explain
from athena_async.errors import ConfigError, CredentialsError, ErrorCode, MissingExtraError, RpcError
from athena_async.jobs.ledger import LedgerError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("tls", 3, "True or False"), 2, "tls is 3, but must be True or False"),
        (MissingExtraError("Parquet output", "parquet"), 2, "pip install 'athena-async[parquet]'"),
        (ModuleNotFoundError("no", name="grpc_health.v1"), 2, "pip install 'athena-async[emulator]'"),
        (
            RpcError(ErrorCode.UNAVAILABLE, "connection\nrefused"),
            3,
            "UNAVAILABLE: connection refused (athena-async doctor looks closer)",
        ),
        (CredentialsError("token endpoint is away"), 3, "token endpoint is away"),
        (LedgerError("in use"), 4, "in use"),
        (OSError(28, "No space left on device"), 4, "No space left on device"),
        (PermissionError(13, "Permission denied", "/out"), 4, "/out: Permission denied"),
        (ZeroDivisionError("division by zero"), 4, "ZeroDivisionError: division by zero (athena-async --debug"),
    ],
)
def test_each_error_has_a_code_and_one_line(error: Exception, code: int, line: str) -> None:
    assert exit_for(error) == code
    assert line in explain(error)
    assert "\n" not in explain(error)
