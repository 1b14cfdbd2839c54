"""Files that decide answers: known hashes and expected outputs."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from athena_async.emulator.expected import ExpectedOutputs
from athena_async.emulator.known import KnownHashes, is_digest
from athena_async.errors import ConfigError

LABELS = ["UnknownCSAM-Lakeside", "UnknownCSAM-Goose"]


def test_known_hashes_are_read_with_and_without_their_kind(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"# made up\n{'a' * 32}\nmd5:{'B' * 32}\n\nsha1: {'c' * 40}  # note\n")
    known = KnownHashes.read(file)
    assert len(known) == 3
    assert "A" * 32 in known
    assert "b" * 32 in known
    assert "c" * 40 in known
    assert "d" * 32 not in known
    assert "a" * 32 not in repr(known)


@pytest.mark.parametrize("line", ["abc", f"sha1:{'a' * 32}", f"crc:{'a' * 32}", "g" * 32])
def test_a_line_that_is_no_digest_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "known"
    file.write_text("# first\n" + line)
    with pytest.raises(ConfigError, match="known:2") as caught:
        KnownHashes.read(file)
    assert line not in str(caught.value)


def test_digests_have_their_length() -> None:
    assert is_digest("md5", "0F" * 16)
    assert not is_digest("md5", "0F" * 20)
    assert is_digest("sha1", "0f" * 20)


@pytest.fixture
def cases(tmp_path: Path, photograph_paths: list[Path]) -> Path:
    """Two photographs, one below ``images``, one beside the file."""
    (tmp_path / "images" / "some").mkdir(parents=True)
    (tmp_path / "images" / "some" / "first.png").write_bytes(photograph_paths[0].read_bytes())
    (tmp_path / "second.png").write_bytes(photograph_paths[1].read_bytes())
    images = [["some/first.png", [0.75, 0.25]], ["second.png", [0.0, 1.0]]]
    file = tmp_path / "expected_outputs.json"
    file.write_text(json.dumps({"classification_labels": LABELS, "images": images}))
    return file


def test_images_are_found_by_their_pixels_whoever_resized_them(cases: Path, photograph_paths: list[Path]) -> None:
    expected = ExpectedOutputs.read(cases)
    original = cv2.imread(str(photograph_paths[0]))
    assert original is not None
    for interpolation in (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_LANCZOS4):
        found = expected.by_pixels(np.asarray(cv2.resize(original, (448, 448), interpolation=interpolation)))
        assert found is not None
        assert dict(found) == {LABELS[0]: 0.75, LABELS[1]: 0.25}


def test_a_recompressed_image_is_still_the_same(cases: Path, frames: list[NDArray[np.uint8]]) -> None:
    out = io.BytesIO()
    Image.fromarray(frames[1][:, :, ::-1]).save(out, "JPEG", quality=80)
    pixels = np.asarray(Image.open(io.BytesIO(out.getvalue())))[:, :, ::-1]
    found = ExpectedOutputs.read(cases).by_pixels(pixels)
    assert found is not None
    assert dict(found)[LABELS[1]] == 1.0


def test_other_images_and_spoilt_ones_are_not_found(cases: Path, frames: list[NDArray[np.uint8]]) -> None:
    expected = ExpectedOutputs.read(cases)
    assert expected.by_pixels(frames[2]) is None
    assert expected.by_pixels(frames[0][:, ::-1]) is None
    assert expected.by_pixels(frames[0][:, :, ::-1]) is None


def test_images_are_found_by_the_hash_of_their_file(cases: Path, photograph_paths: list[Path]) -> None:
    expected = ExpectedOutputs.read(cases)
    digest = hashlib.md5(photograph_paths[1].read_bytes()).hexdigest()
    assert dict(expected.by_hashes(["0" * 32, digest.upper()]) or ()) == {LABELS[0]: 0.0, LABELS[1]: 1.0}
    assert expected.by_hashes(["0" * 32]) is None
    assert repr(expected) == "ExpectedOutputs(2 images)"


def test_an_empty_file_of_cases_knows_nothing(tmp_path: Path, frames: list[NDArray[np.uint8]]) -> None:
    file = tmp_path / "none.json"
    file.write_text('{"classification_labels": [], "images": []}')
    assert ExpectedOutputs.read(file).by_pixels(frames[0]) is None


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"images": []}',
        '{"classification_labels": ["a"], "images": [["x.png", [1, 2]]]}',
        '{"classification_labels": ["a"], "images": [["missing.png", [1]]]}',
        '{"classification_labels": ["a"], "images": [["cases.json", [1]]]}',
    ],
)
def test_another_form_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "cases.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match="expected_outputs"):
        ExpectedOutputs.read(file)
