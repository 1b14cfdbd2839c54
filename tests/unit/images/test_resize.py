"""Resized pixels against OpenCV's own, which are the official client's, on photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import PIL
import pytest
from PIL import Image

from athena_async.config import PreprocessConfig
from athena_async.errors import MissingExtraError
from athena_async.images import resize
from athena_async.images.inputs import to_source
from athena_async.images.preprocess import prepare

np = pytest.importorskip("numpy")

SIZES = [
    (1280, 960),
    (640, 480),
    (451, 300),
    (3000, 2000),
    (300, 451),
    (449, 447),
    (896, 896),
    (448, 448),
    (96, 64),
    (7, 1200),
    (1, 1),
]


def prepared(image: object, **fields: Any) -> Any:
    data = prepare(to_source(image), PreprocessConfig(**fields), "none").data
    return np.frombuffer(data, np.uint8).reshape(448, 448, 3).astype(int)


def official(data: bytes) -> Any:
    """What the official client sends: cv2.imdecode in colour, cv2.resize at its default."""
    cv2 = pytest.importorskip("cv2")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return (pixels if pixels.shape[:2] == (448, 448) else cv2.resize(pixels, (448, 448))).astype(int)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_bilinear_is_the_official_clients(
    photograph: Image.Image, encoded: Callable[..., bytes], size: tuple[int, int], name: str
) -> None:
    data = encoded(photograph.resize(size), name, **({"compress_level": 1} if name == "PNG" else {}))
    expected = official(data)
    assert np.array_equal(prepared(data, resizer="opencv"), expected)
    assert np.abs(prepared(data, resizer="pillow") - expected).max() <= 1


@pytest.mark.parametrize("size", [*SIZES, (448, 900), (4096, 450), (1001, 777)])
@pytest.mark.parametrize("two_taps", [resize._two_taps, resize.on_lattice])
@pytest.mark.parametrize("contrast", [1, 255], ids=["noise", "black and white"])
def test_pillows_two_taps_hold_for_noise_too(
    size: tuple[int, int], two_taps: Callable[[Image.Image], Image.Image], contrast: int
) -> None:
    cv2 = pytest.importorskip("cv2")
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(7).integers(0, 255 // contrast, shape, np.uint8, endpoint=True) * np.uint8(contrast)
    ours = np.asarray(two_taps(Image.fromarray(pixels)))
    assert np.abs(ours.astype(int) - cv2.resize(pixels, (448, 448)).astype(int)).max() <= 1


def test_the_lattice_is_for_pillow_simd() -> None:
    photograph = Image.new("RGB", (1280, 960))
    assert resize._lattice_is_faster(photograph) is resize.is_simd(PIL.__version__)
    assert not resize._lattice_is_faster(photograph.convert("L"))
    assert not resize._lattice_is_faster(Image.new("RGB", (3000, 2000)))
    assert not resize._lattice_is_faster(Image.new("RGB", (5000, 449)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photographs_too(astronaut: Image.Image, encoded: Callable[..., bytes], orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    for name in ("JPEG", "PNG"):
        data = encoded(astronaut.resize((700, 501)), name, exif=tags.tobytes())
        expected = official(data)
        assert np.array_equal(prepared(data, resizer="opencv"), expected)
        assert np.abs(prepared(data, resizer="pillow") - expected).max() <= 1


@pytest.mark.parametrize("kind", ["L", "CMYK", "progressive"])
def test_other_jpegs(astronaut: Image.Image, encoded: Callable[..., bytes], kind: str) -> None:
    image = astronaut if kind == "progressive" else astronaut.convert(kind)
    data = encoded(image.resize((800, 600)), "JPEG", progressive=kind == "progressive")
    expected = official(data)
    assert np.array_equal(prepared(data, resizer="opencv"), expected)
    assert np.abs(prepared(data, resizer="pillow") - expected).max() <= (2 if kind == "CMYK" else 1)


def test_a_pil_image_gives_the_pixels_of_its_file(
    astronaut: Image.Image, encoded: Callable[..., bytes], resizer: str
) -> None:
    data = encoded(astronaut.resize((900, 700)), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(prepared(image, resizer=resizer), prepared(data, resizer=resizer))


@pytest.mark.parametrize("size", [(1280, 960), (3600, 2700), (450, 4000), (500, 460), (300, 200)])
def test_antialias_is_close_to_a_good_filter(
    photograph: Image.Image, encoded: Callable[..., bytes], size: tuple[int, int], resizer: str
) -> None:
    data = encoded(photograph.resize(size), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as decoded:
        ideal = np.asarray(decoded.resize((448, 448), Image.Resampling.LANCZOS))[..., ::-1].astype(int)
    assert np.abs(prepared(data, resizer=resizer, resampling="antialias") - ideal).mean() < 3.5


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_antialias_quietens_noise_that_two_taps_keep(encoded: Callable[..., bytes], name: str, resizer: str) -> None:
    noise = Image.effect_noise((1800, 1801), 60).convert("RGB")
    data = encoded(noise, name, **({"compress_level": 1} if name == "PNG" else {"quality": 95}))
    averaged = prepared(data, resizer=resizer, resampling="antialias").std()
    assert averaged < 0.65 * prepared(data, resizer=resizer).std()


@pytest.mark.parametrize(
    ("size", "scale"),
    [((447, 5000), 1), ((448, 448), 1), ((895, 2000), 1), ((896, 896), 2), ((1792, 2000), 4), ((9000, 3584), 8)],
)
def test_a_jpeg_is_scaled_while_448_pixels_remain(size: tuple[int, int], scale: int) -> None:
    assert resize.dct_scale(size) == scale


def test_the_resizer_is_opencv_where_it_is() -> None:
    assert resize.uses_opencv("auto") is resize.has_opencv()
    assert not resize.uses_opencv("pillow")
    if resize.has_opencv():
        assert resize.uses_opencv("opencv")
    else:
        with pytest.raises(MissingExtraError, match="opencv"):
            resize.uses_opencv("opencv")


def test_contiguous_buffers_are_not_copied() -> None:
    frame = np.arange(448 * 448 * 3, dtype=np.uint64).astype(np.uint8).reshape(448, 448, 3)
    view = resize.contiguous(frame)
    frame[0, 0, 0] = 99
    assert view[0] == 99
    assert resize.contiguous(frame[::-1]).tobytes() == frame[::-1].tobytes()
