"""Decoders that crash, hang or eat memory, inside the whole client: one image fails, and its neighbours do not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.faults.decoder_run import BAD, COUNT

# A plug-in of Pillow, as a program's environment can have it: it takes the place of a format's own decoder in every
# process that this interpreter starts.
BROKEN_DECODER = """
import site
site.addsitedir({site_packages!r})
import ctypes, time
from PIL import Image, ImageFile

class Broken(ImageFile.PyDecoder):
    def decode(self, buffer):
        match bytes(buffer[:5]):
            case b"CRASH": ctypes.string_at(0)
            case b"SPINS":
                while True: pass
            case b"SLEEP": time.sleep(60.0)
            case b"EATS.": self.eaten = bytearray(1 << 30)
        self.set_as_raw(bytes(300))
        return -1, 0

Image.register_decoder("sun_rle", Broken)
"""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with everything that this one has, and the decoder."""
    home = tmp_path_factory.mktemp("broken")
    venv.create(home, symlinks=True)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    code = BROKEN_DECODER.format(site_packages=sysconfig.get_path("purelib"))
    (own / "sitecustomize.py").write_text(code)
    return home / "bin" / "python"


def run(interpreter: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(entry or "." for entry in sys.path)
    return subprocess.run(
        [interpreter, "-m", "tests.faults.decoder_run", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_a_decoder_that_ends_its_process_costs_one_image(interpreter: Path) -> None:
    messages = {
        "CRASH": r"a crash \(Segmentation fault\)",
        "SPINS": "more than 0.2 s of processor time|no result within 1.2 s",  # whichever a busy machine comes to first
        "SLEEP": "no result within 1.2 s",
        "EATS.": "needs more memory",
        "FINE.": "",
    }
    ended = run(interpreter, "process", *messages)
    assert ended.returncode == 0, ended.stderr
    for (act, message), line in zip(messages.items(), ended.stdout.splitlines(), strict=True):
        rows = json.loads(line)
        outcome, code, text = rows.pop(BAD)
        assert rows == [["CLASSIFIED", None, "None"]] * (COUNT - 1), act
        expected = ("CLASSIFIED", None) if act == "FINE." else ("FAILED", "INVALID_IMAGE")
        assert (outcome, code) == expected, (act, text)
        assert re.search(message, text)


def test_without_processes_of_their_own_the_same_decoder_ends_the_program(interpreter: Path) -> None:
    ended = run(interpreter, "thread", "FINE.", "CRASH")
    assert ended.returncode == -signal.SIGSEGV, ended.stderr
    assert [len(json.loads(line)) for line in ended.stdout.splitlines()] == [COUNT]
