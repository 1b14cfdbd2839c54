"""Our package and the official client in one process: both register Athena's messages."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = "import typing, typing_extensions\ntyping.override = typing_extensions.override\n"
OURS = "import athena_async.emulator.server, athena_async.wire\n"
THEIRS = "import resolver_athena_client.client.athena_client\n"
CHECK = """
from athena_async._proto.athena import models_pb2 as ours
from resolver_athena_client.generated.athena import models_pb2 as theirs
request = ours.ClassifyRequest(deployment_id="d", inputs=[ours.ClassificationInput(correlation_id="x", format=19)])
again = theirs.ClassifyRequest.FromString(request.SerializeToString())
assert (again.deployment_id, again.inputs[0].correlation_id, again.inputs[0].format) == ("d", "x", 19)
assert ours.ClassifyRequest is not theirs.ClassifyRequest
print("both")
"""


@pytest.mark.parametrize("imports", [OURS + THEIRS, THEIRS + OURS], ids=["ours-first", "theirs-first"])
def test_both_packages_live_in_one_process(imports: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + imports + CHECK],
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "both"), done.stderr
