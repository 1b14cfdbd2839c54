"""P15: no image byte, token or plain hash in anything that a program prints, logs, counts or raises."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys

import pytest

from tests.faults.canary_run import KEY, MARKER, MD5, SECRET, SHA1

pytest.importorskip("joserfc")
pytest.importorskip("prometheus_client")


def forms(secret: bytes) -> list[bytes]:
    """How a secret may look in a text: as it is, as hex or base64, as numbers."""
    encoded = base64.b64encode(secret)[: len(secret) // 3 * 4]
    numbers = ", ".join(str(byte) for byte in secret[:8]).encode()
    return [secret, secret.hex().encode(), encoded, numbers]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("style", ["json", "people"])
def test_no_output_at_debug_holds_a_token_a_hash_or_an_image_byte(style: str) -> None:
    environment = os.environ | {"GRPC_VERBOSITY": "DEBUG", "PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "tests.faults.canary_run", style]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=55, check=False)
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0, output[-2000:].decode(errors="replace")
    assert b"the run is over" in ended.stderr
    # Every kind of output was there to be searched.
    for sign in (b"stream_closed", b"Traceback", b"UNAUTHENTICATED", b"INVALID_IMAGE", b"AFFILIATE_NOT_PERMITTED"):
        assert sign in output, sign
    for sign in (b"MODEL_ERROR", b"athena_images_settled_total", b"Executing <", b"StreamClosed("):
        assert sign in output, sign
    planted = {"key": KEY.encode(), "secret": SECRET.encode(), "image": MARKER}
    hits = [(name, form) for name, value in planted.items() for form in forms(value) if form in output]
    hits += [(name, value.encode()) for name, value in (("md5", MD5), ("sha1", SHA1)) if value.encode() in output]
    hits += [("jwt", found) for found in re.findall(rb"eyJ[\w-]{10,}", output)]
    print(f"P15 ({style}): {len(output)} bytes of output, {len(hits)} hits")
    assert not hits, [(name, form, output[max(0, output.index(form) - 200) :][:400]) for name, form in hits[:3]]
