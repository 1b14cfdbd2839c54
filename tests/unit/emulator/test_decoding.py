"""Every listed format, and every way of not being one."""

from __future__ import annotations

import io

import brotli
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from athena_async.emulator.decoding import Refusal, decode, decompress
from athena_async.errors import ErrorCode
from athena_async.wire import Encoding, ImageFormat

Frame = NDArray[np.uint8]


def by_pillow(frame: Frame, kind: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame[:, :, ::-1]).convert(mode).save(out, kind, **options)
    return out.getvalue()


def by_opencv(frame: NDArray[np.generic], extension: str) -> bytes:
    done, out = cv2.imencode(extension, frame)
    assert done
    return bytes(out)


LOSSLESS = {
    ImageFormat.BMP: lambda f: by_pillow(f, "BMP"),
    ImageFormat.DIB: lambda f: by_pillow(f, "DIB"),
    ImageFormat.PNG: lambda f: by_pillow(f, "PNG"),
    ImageFormat.WEBP: lambda f: by_pillow(f, "WEBP", lossless=True),
    ImageFormat.PPM: lambda f: by_opencv(f, ".ppm"),
    ImageFormat.PXM: lambda f: by_opencv(f, ".ppm"),
    ImageFormat.PNM: lambda f: by_opencv(f, ".pnm"),
    ImageFormat.SR: lambda f: by_opencv(f, ".sr"),
    ImageFormat.RAS: lambda f: by_opencv(f, ".ras"),
    ImageFormat.TIFF: lambda f: by_pillow(f, "TIFF"),
    ImageFormat.RAW_UINT8_BGR: lambda f: f.tobytes(),
}
LOSSY = {
    ImageFormat.JPEG: lambda f: by_pillow(f, "JPEG", quality=95),
    ImageFormat.GIF: lambda f: by_pillow(f, "GIF"),
    ImageFormat.PFM: lambda f: by_opencv(f.astype(np.float32), ".pfm"),
    ImageFormat.HDR: lambda f: by_opencv((f.astype(np.float32) / 255.0), ".hdr"),
    ImageFormat.PIC: lambda f: by_opencv((f.astype(np.float32) / 255.0), ".hdr"),
}


@pytest.mark.parametrize("kind", list(LOSSLESS), ids=lambda kind: kind.name)
def test_lossless_formats_come_out_as_they_went_in(frames: list[Frame], kind: ImageFormat) -> None:
    assert np.array_equal(decode(LOSSLESS[kind](frames[0]), kind), frames[0])


@pytest.mark.parametrize("kind", list(LOSSY), ids=lambda kind: kind.name)
def test_lossy_formats_come_out_alike(frames: list[Frame], kind: ImageFormat) -> None:
    decoded = decode(LOSSY[kind](frames[0]), kind)
    assert decoded.shape == (448, 448, 3)
    assert np.abs(decoded.astype(int) - frames[0]).mean() < 20


@pytest.mark.parametrize(("kind", "mode"), [(ImageFormat.PGM, "L"), (ImageFormat.PBM, "1")])
def test_grey_and_bilevel_formats(frames: list[Frame], kind: ImageFormat, mode: str) -> None:
    decoded = decode(by_pillow(frames[0], "PPM", mode), kind)
    grey = np.asarray(Image.fromarray(frames[0][:, :, ::-1]).convert(mode).convert("L"))
    assert np.array_equal(decoded[:, :, 0], grey)


def test_grey_float_maps_are_read(frames: list[Frame]) -> None:
    data = by_opencv(frames[0][:, :, 0].astype(np.float32), ".pfm")
    assert np.array_equal(decode(data, ImageFormat.PFM)[:, :, 1], frames[0][:, :, 0])


def test_every_listed_format_is_tried_here() -> None:
    assert {*LOSSLESS, *LOSSY, ImageFormat.PGM, ImageFormat.PBM, ImageFormat.UNSPECIFIED} == set(ImageFormat)


def test_deep_png_is_cut_to_eight_bits(frames: list[Frame]) -> None:
    grey = frames[0][:, :, 0].astype(np.uint16) * 257
    assert np.array_equal(decode(by_opencv(grey, ".png"), ImageFormat.PNG)[:, :, 0], frames[0][:, :, 0])


def test_alpha_is_dropped(frames: list[Frame]) -> None:
    alpha = np.zeros((448, 448, 1), np.uint8)
    data = by_opencv(np.concatenate([frames[0], alpha], axis=2), ".png")
    assert np.array_equal(decode(data, ImageFormat.PNG), frames[0])


def test_orientation_is_applied(frames: list[Frame]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right for viewing
    data = by_pillow(frames[0], "PNG", exif=exif)
    assert np.array_equal(decode(data, ImageFormat.PNG), np.rot90(frames[0], -1))


@pytest.mark.parametrize("size", [(447, 448), (448, 447), (896, 896), (1, 1)])
def test_another_size_is_refused(size: tuple[int, int]) -> None:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "PNG")
    with pytest.raises(Refusal, match=f"Image Classification Error: .*{size[0]}x{size[1]}") as caught:
        decode(out.getvalue(), ImageFormat.PNG)
    assert caught.value.code is ErrorCode.UNSPECIFIED


def test_a_giant_size_is_refused_before_decoding() -> None:
    out = io.BytesIO()
    Image.new("1", (448, 448)).save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(Refusal, match="Image Classification Error"):
        decode(bytes(data), ImageFormat.PNG)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ImageFormat.PNG),
        (b"not an image", ImageFormat.JPEG),
        (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
        (b"#?RADIANCE\nbroken", ImageFormat.HDR),
        (b"\x00" * 602_111, ImageFormat.RAW_UINT8_BGR),
        (b"\x00" * 602_113, ImageFormat.RAW_UINT8_BGR),
        (b"\x00" * 602_112, ImageFormat.UNSPECIFIED),
        (b"\x00" * 602_112, 18),
        (b"\x00" * 602_112, 99),
    ],
)
def test_what_is_no_image_is_a_classification_error(data: bytes, kind: int) -> None:
    with pytest.raises(Refusal, match="Image Classification Error") as caught:
        decode(data, kind)
    assert caught.value.code is ErrorCode.UNSPECIFIED


def test_a_truncated_image_is_a_classification_error(frames: list[Frame]) -> None:
    for kind in (ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.TIFF, ImageFormat.WEBP):
        data = {**LOSSLESS, **LOSSY}[kind](frames[0])
        with pytest.raises(Refusal, match="Image Classification Error"):
            decode(data[: len(data) // 2], kind)


def test_the_format_must_be_the_one_it_is_said_to_be_unless_leniency_is_asked_for(frames: list[Frame]) -> None:
    data = LOSSLESS[ImageFormat.PNG](frames[0])
    with pytest.raises(Refusal, match="not of the format JPEG"):
        decode(data, ImageFormat.JPEG)
    assert np.array_equal(decode(data, ImageFormat.JPEG, strict=False), frames[0])
    assert np.array_equal(decode(data, ImageFormat.UNSPECIFIED, strict=False), frames[0])
    assert np.array_equal(decode(frames[0].tobytes(), ImageFormat.UNSPECIFIED, strict=False), frames[0])


def test_uncompressed_data_is_left_alone() -> None:
    assert decompress(b"data", Encoding.UNCOMPRESSED, 10) == b"data"
    assert decompress(b"data", Encoding.UNSPECIFIED, 10) == b"data"


def test_brotli_is_undone() -> None:
    assert decompress(brotli.compress(b"data" * 100), Encoding.BROTLI, 400) == b"data" * 100


@pytest.mark.parametrize(
    "data", [b"", b"not brotli", brotli.compress(b"data" * 100)[:-3], brotli.compress(b"x") + b"trailing"]
)
def test_bad_compression_is_a_classification_error(data: bytes) -> None:
    with pytest.raises(Refusal, match="Image Classification Error") as caught:
        decompress(data, Encoding.BROTLI, 1000)
    assert caught.value.code is ErrorCode.UNSPECIFIED


def test_an_unknown_encoding_is_a_classification_error() -> None:
    with pytest.raises(Refusal, match="unknown encoding 7"):
        decompress(b"data", 7, 1000)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(b"x" * 1001, Encoding.UNCOMPRESSED), (brotli.compress(b"\0" * 50_000_000), Encoding.BROTLI)],
    ids=["plain", "bomb"],
)
def test_too_many_bytes_are_too_large_before_and_after_decompression(data: bytes, encoding: int) -> None:
    with pytest.raises(Refusal) as caught:
        decompress(data, encoding, 1000)
    assert caught.value.code is ErrorCode.IMAGE_TOO_LARGE
