"""What is said of the Pillow that is active."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import PIL
import pytest

from athena_async.images.build import CODECS, describe, pillow_build

EVERY_CODEC = dict.fromkeys(CODECS, "1")


@pytest.mark.parametrize(
    ("version", "name", "holes"),
    [
        ("13.0.0", "Pillow", 0),
        ("13.1.0", "Pillow", 0),
        ("12.3.0", "Pillow", 1),
        ("12.1.1.post0", "Pillow-SIMD", 1),
        ("13.0.0.post0", "Pillow-SIMD", 0),
        ("14.0.0.dev0", "Pillow", 0),
    ],
)
def test_name_and_holes_follow_from_the_version(version: str, name: str, holes: int) -> None:
    build = describe(version, {"pillow": version}, "pillow", EVERY_CODEC)
    assert (build.name, build.version, len(build.holes)) == (name, version, holes)
    assert all(hole.name == "CVE-2026-112403" for hole in build.holes)


def test_both_installed_is_told() -> None:
    assert describe("13.0.0", {"pillow": "13.0.0", "pillow-simd": "12.1.1"}, "pillow", EVERY_CODEC).installed_twice
    assert not describe("13.0.0", {"pillow": "13.0.0"}, "pillow", EVERY_CODEC).installed_twice


def test_missing_codecs_are_named() -> None:
    build = describe("13.0.0", {}, None, EVERY_CODEC | {"avif": None, "webp": None})
    assert build.missing_codecs == ("webp", "avif")


def test_this_process() -> None:
    build = pillow_build()
    assert build.version == PIL.__version__
    assert set(build.codecs) == set(CODECS)
    assert build.codecs["jpg"]
    assert build.owner == ("pillow-simd" if build.name == "Pillow-SIMD" else "pillow")
    assert not build.installed_twice


def test_a_second_installation_is_seen_and_the_owner_told(tmp_path: Path) -> None:
    owner = pillow_build().owner
    other = "pillow" if owner == "pillow-simd" else "pillow-simd"
    record = tmp_path / f"{other.replace('-', '_')}-9.9.9.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {other}\nVersion: 9.9.9\n")
    (record / "RECORD").write_text("PIL/_version.py,sha256=AAAA,9\n")
    code = (
        "from athena_async.images.build import pillow_build; build = pillow_build();"
        f"print(build.installed_twice, build.owner, dict(build.installed)[{other!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.split() == ["True", str(owner), "9.9.9"], done.stderr
