"""From a source to a payload: hashes, files, limits, and what passes untouched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.inputs import ImageInput, to_source
from athena_async.images.preprocess import prepare
from athena_async.wire import Encoding, ImageFormat, Payload

Encoded = Callable[..., bytes]


def made(image: object, encoding: str = "none", **fields: object) -> Payload:
    return prepare(to_source(image), PreprocessConfig(**fields), encoding)  # type: ignore[arg-type]


@pytest.fixture
def jpeg(astronaut: Image.Image, encoded: Encoded) -> bytes:
    return encoded(astronaut, "JPEG")


def test_hashes_are_of_the_original_bytes(jpeg: bytes) -> None:
    payload = made(jpeg)
    assert payload.md5 == (hashlib.md5(jpeg).hexdigest(),)
    assert payload.sha1 == (hashlib.sha1(jpeg).hexdigest(),)
    assert payload.original_bytes == len(jpeg)
    assert (payload.format, payload.encoding, len(payload.data)) == (
        ImageFormat.RAW_UINT8_BGR,
        Encoding.UNCOMPRESSED,
        RAW_FRAME_BYTES,
    )


@pytest.mark.parametrize("hashes", [(), ("md5",), ("sha1",)])
def test_only_the_configured_hashes(jpeg: bytes, hashes: tuple[str, ...]) -> None:
    payload = made(jpeg, hashes=hashes)
    assert (bool(payload.md5), bool(payload.sha1)) == ("md5" in hashes, "sha1" in hashes)


def test_the_callers_hashes_are_added_and_none_is_sent_twice(jpeg: bytes) -> None:
    own = hashlib.md5(jpeg).hexdigest()
    payload = made(ImageInput(data=jpeg, md5=[own.upper(), "0" * 32], sha1="1" * 40))
    assert payload.md5 == (own, "0" * 32)
    assert payload.sha1 == (hashlib.sha1(jpeg).hexdigest(), "1" * 40)


def test_hash_only_has_no_data() -> None:
    payload = made(ImageInput(md5="0" * 32))
    assert payload == Payload(b"", ImageFormat.UNSPECIFIED, Encoding.UNCOMPRESSED, ("0" * 32,), ())


def test_arrays_and_pictures_have_no_original_to_hash(astronaut: Image.Image) -> None:
    assert made(astronaut).md5 == ()
    frame = memoryview(bytes(RAW_FRAME_BYTES)).cast("B", (448, 448, 3))
    assert made(ImageInput(data=frame, sha1="1" * 40))[3:] == ((), ("1" * 40,), 0)


def test_every_kind_of_bytes_and_the_path_give_the_same(jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "named.png"  # the name does not matter
    path.write_bytes(jpeg)
    payloads = [
        made(image) for image in (jpeg, bytearray(jpeg), memoryview(jpeg), memoryview(jpeg)[:], path, str(path))
    ]
    assert len({(bytes(p.data), p.md5, p.sha1) for p in payloads}) == 1


def test_a_strided_memoryview_is_what_it_shows(jpeg: bytes) -> None:
    doubled = bytes(byte for byte in jpeg for _ in (0, 1))
    assert made(memoryview(doubled)[::2]).md5 == made(jpeg).md5


def test_arrays_pass_untouched_without_a_copy() -> None:
    numpy = pytest.importorskip("numpy")
    frame = numpy.random.default_rng(0).integers(0, 256, (448, 448, 3)).astype(numpy.uint8)
    payload = made(frame)
    assert bytes(payload.data) == frame.tobytes()
    frame[0, 0, 0] ^= 255
    assert payload.data[0] == frame[0, 0, 0]
    assert bytes(made(frame[:, ::-1]).data) == frame[:, ::-1].tobytes()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("png", (ImageFormat.PNG, Encoding.UNCOMPRESSED)), ("brotli", (ImageFormat.RAW_UINT8_BGR, Encoding.BROTLI))],
)
def test_encodings_are_told_on_the_wire(jpeg: bytes, encoding: str, expected: tuple[ImageFormat, Encoding]) -> None:
    if encoding == "brotli":
        pytest.importorskip("brotli")
    payload = made(jpeg, encoding)
    assert (payload.format, payload.encoding) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("JPEG", ImageFormat.JPEG), ("PNG", ImageFormat.PNG), ("BMP", ImageFormat.BMP), ("DIB", ImageFormat.DIB),
     ("TIFF", ImageFormat.TIFF), ("PPM", ImageFormat.PPM), ("GIF", ImageFormat.GIF)],
)  # fmt: skip
def test_without_resize_a_file_of_the_right_size_passes_in_its_format(
    astronaut: Image.Image, encoded: Encoded, name: str, expected: ImageFormat
) -> None:
    data = encoded(astronaut.resize((448, 448)), name)
    payload = made(data, "webp", resize=False)
    assert (payload.data, payload.format, payload.encoding) == (data, expected, Encoding.UNCOMPRESSED)
    assert payload.md5 == (hashlib.md5(data).hexdigest(),)


def test_without_resize_formats_of_opencv_pass_by_their_header() -> None:
    data = b"PF\n448 448\n-1.0\n" + bytes(448 * 448 * 12)
    assert made(data, resize=False).format is ImageFormat.PFM


def test_without_resize_another_size_is_refused(astronaut: Image.Image, encoded: Encoded) -> None:
    for image in (encoded(astronaut, "JPEG"), astronaut, b"PF\n4 3\n-1.0\n"):
        with pytest.raises(ClassificationError, match="448x448") as caught:
            made(image, resize=False)
        assert caught.value.code is ErrorCode.INVALID_IMAGE


def test_without_resize_a_format_unknown_to_the_service_is_refused() -> None:
    with pytest.raises(ClassificationError, match="JPEG 2000") as caught:
        made(b"\xff\x4f\xff\x51" + bytes(50), resize=False)
    assert caught.value.code is ErrorCode.UNSUPPORTED_FORMAT


def test_files_over_the_cap_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        file.truncate(10**12)
    for image in (path, bytes(2000)):
        with pytest.raises(ClassificationError, match="max_file_bytes") as caught:
            made(image, max_file_bytes=1024)
        assert caught.value.code is ErrorCode.INVALID_IMAGE


def test_what_is_no_file_is_refused_with_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing.jpg", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ClassificationError, match=path.name) as caught:
            made(path)
        assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(("data", "code"), [(b"", ErrorCode.INVALID_IMAGE), (b"text", ErrorCode.UNSUPPORTED_FORMAT)])
def test_no_image_at_all(data: bytes, code: ErrorCode) -> None:
    with pytest.raises(ClassificationError) as caught:
        made(data)
    assert caught.value.code is code


def test_a_memoryview_released_meanwhile() -> None:
    view = memoryview(bytearray(b"123"))
    source = to_source(view)
    view.release()
    with pytest.raises(ClassificationError, match="released"):
        prepare(source, PreprocessConfig(), "none")


def test_raw_pixels_as_plain_bytes_are_told_how_to_come() -> None:
    with pytest.raises(ClassificationError, match=r"\(448, 448, 3\)"):
        made(bytes(RAW_FRAME_BYTES))
