"""What is not installed is named together with its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "adapter", "extra"),
    [
        ("prometheus_client", "athena_async.observability.metrics.PrometheusObserver()", "metrics"),
        ("opentelemetry", "athena_async.observability.tracing.TracingObserver()", "tracing"),
        (
            "httpx2",
            "athena_async.auth.credentials.credentials_from_config(athena_async.config.ClientConfig("
            "oauth=athena_async.config.OAuthConfig(client_id='x', client_secret='y')))",
            "oauth",
        ),
    ],
)
def test_a_missing_extra_is_named(module: str, adapter: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None
import athena_async.auth.credentials, athena_async.config
import athena_async.observability.metrics, athena_async.observability.tracing
try:
    {adapter}
except athena_async.errors.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"pip install 'athena-async[{extra}]'" in done.stdout
