"""P15: no image byte, token or plain hash in anything that a program prints, logs, counts or raises."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.canary_run import KEY, MARKER, MD5, SECRET, SHA1

pytest.importorskip("joserfc")
pytest.importorskip("prometheus_client")


def forms(secret: bytes) -> list[bytes]:
    """How a secret may look in a text: as it is, as hex or base64, as numbers."""
    encoded = base64.b64encode(secret)[: len(secret) // 3 * 4]
    numbers = ", ".join(str(byte) for byte in secret[:8]).encode()
    return [secret, secret.hex().encode(), encoded, numbers]


def run_all(styles: tuple[str, ...]) -> dict[str, bytes]:
    """What each run wrote, to standard output and standard error together. They run side by side."""
    environment = os.environ | {"GRPC_VERBOSITY": "DEBUG", "PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "tests.faults.canary_run"]
    with contextlib.ExitStack() as stack:
        running = {
            style: stack.enter_context(
                subprocess.Popen([*command, style], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
            for style in styles
        }
        with ThreadPoolExecutor() as threads:
            written = threads.map(lambda run: run.communicate(timeout=55)[0], running.values())
            outputs = dict(zip(running, written, strict=True))
    for style, ended in running.items():
        assert ended.returncode == 0, outputs[style][-2000:].decode(errors="replace")
    return outputs


def hits(output: bytes) -> list[tuple[str, bytes]]:
    """What was planted and found."""
    planted = {"key": KEY.encode(), "secret": SECRET.encode(), "image": MARKER}
    found = [(name, form) for name, value in planted.items() for form in forms(value) if form in output]
    found += [(name, value.encode()) for name, value in (("md5", MD5), ("sha1", SHA1)) if value.encode() in output]
    return found + [("jwt", token) for token in re.findall(rb"eyJ[\w-]{10,}", output)]


@pytest.mark.timeout(60)
def test_no_output_at_debug_holds_a_token_a_hash_or_an_image_byte() -> None:
    for style, output in run_all(("json", "people")).items():
        # Every kind of output was there to be searched.
        for sign in (b"stream_closed", b"Traceback", b"UNAUTHENTICATED", b"INVALID_IMAGE", b"AFFILIATE_NOT_PERMITTED"):
            assert sign in output, sign
        for sign in (b"MODEL_ERROR", b"athena_images_settled_total", b"Executing <", b"StreamClosed(", b"run is over"):
            assert sign in output, sign
        found = hits(output)
        print(f"P15 ({style}): {len(output)} bytes of output, {len(found)} hits")
        assert not found, [(name, form, output[max(0, output.index(form) - 200) :][:400]) for name, form in found[:3]]
