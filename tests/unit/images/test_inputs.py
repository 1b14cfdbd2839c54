"""What is taken as an image, and what is said about what is not."""

from __future__ import annotations

import array
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from athena_async.config import RAW_FRAME_BYTES
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.inputs import HASH_ONLY_BYTES, ImageInput, Kind, display_name, to_source

MD5 = "0123456789abcdef0123456789ABCDEF"
SHA1 = "0123456789abcdef0123456789abcdef01234567"


def frame_view(data: bytes | bytearray = b"\7" * RAW_FRAME_BYTES) -> memoryview:
    return memoryview(data).cast("B", (448, 448, 3))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_referred_to_and_admitted_with_their_frame(kind: type) -> None:
    data = kind(b"12345")
    source = to_source(data)
    assert source.kind is Kind.BYTES
    assert source.value is data
    assert source.estimate_bytes == 5 + RAW_FRAME_BYTES


def test_other_buffers_are_bytes(tmp_path: Path) -> None:
    assert to_source(array.array("B", b"123")).kind is Kind.BYTES
    (tmp_path / "file").write_bytes(b"123")
    with open(tmp_path / "file", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        source = to_source(mapped)
        assert source.kind is Kind.BYTES
        assert bytes(source.value) == b"123"
        del source


@pytest.mark.parametrize("path", ["some/file.jpg", Path("some/file.jpg")])
def test_paths_are_texts(path: object) -> None:
    source = to_source(path)
    assert (source.kind, source.value, source.estimate_bytes) == (Kind.PATH, "some/file.jpg", 2 * RAW_FRAME_BYTES)
    assert display_name(source) == "some/file.jpg"


def test_pil_images() -> None:
    image = Image.new("RGB", (20, 10))
    source = to_source(image)
    assert (source.kind, source.estimate_bytes) == (Kind.PIL, 20 * 10 * 3 + RAW_FRAME_BYTES)
    assert source.value is image


def test_arrays_are_referred_to() -> None:
    numpy = pytest.importorskip("numpy")
    frame = numpy.zeros((448, 448, 3), numpy.uint8)
    source = to_source(frame)
    assert source.kind is Kind.ARRAY
    assert source.value is frame
    assert source.estimate_bytes == RAW_FRAME_BYTES


def test_a_cast_memoryview_is_an_array_without_numpy() -> None:
    assert to_source(frame_view()).kind is Kind.ARRAY


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((448, 448), "uint8"), ((10, 448, 3), "uint8"), ((448, 448, 3), "float32"), ((448, 448, 4), "uint8")],
)
def test_other_arrays_are_refused_with_the_remedy(shape: tuple[int, ...], dtype: str) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(ClassificationError) as caught:
        to_source(numpy.zeros(shape, dtype))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert str(shape) in caught.value.message
    assert dtype in caught.value.message
    assert "(448, 448, 3)" in caught.value.message


@pytest.mark.parametrize("value", [None, 5, object(), ["a"], {"a": 1}, 1.5])
def test_other_objects_are_refused_by_name_of_their_type(value: object) -> None:
    with pytest.raises(ClassificationError, match=type(value).__name__) as caught:
        to_source(value)
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_impossible_paths_are_refused(path: str) -> None:
    with pytest.raises(ClassificationError, match="path"):
        to_source(path)


def test_a_released_memoryview_is_refused() -> None:
    view = memoryview(b"123")
    view.release()
    with pytest.raises(ClassificationError, match="released"):
        to_source(view)


def test_an_input_brings_ids_and_hashes() -> None:
    source = to_source(ImageInput(data=b"x", correlation_id="id", affiliate="acme", md5=MD5, sha1=[SHA1, SHA1.upper()]))
    assert (source.correlation_id, source.affiliate) == ("id", "acme")
    assert source.md5 == (MD5.lower(),)
    assert source.sha1 == (SHA1, SHA1)


def test_hashes_alone_are_enough() -> None:
    source = to_source(ImageInput(sha1=SHA1))
    assert (source.kind, source.value, source.estimate_bytes) == (Kind.HASHES, None, HASH_ONLY_BYTES)
    assert display_name(source) == "<hashes>"


def test_a_path_may_be_an_input_with_hashes() -> None:
    assert to_source(ImageInput(path="p.jpg", md5=MD5)).kind is Kind.PATH


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (ImageInput(), "nothing to classify"),
        (ImageInput(md5=[]), "nothing to classify"),
        (ImageInput(data=b"x", path="p"), "both data and path"),
        (ImageInput(data=ImageInput(data=b"x")), "ImageInput itself"),
        (ImageInput(path=5), "path is a int"),  # type: ignore[arg-type]
        (ImageInput(data=5), "int is not a kind of image"),
        (ImageInput(data=b"x", affiliate=""), "affiliate"),
        (ImageInput(data=b"x", affiliate=7), "affiliate"),  # type: ignore[arg-type]
        (ImageInput(md5=MD5[:-1]), "md5 has 31 characters"),
        (ImageInput(md5=MD5[:-1] + "g"), "32 hexadecimal"),
        (ImageInput(sha1=[SHA1, MD5]), "sha1 has 32 characters"),
        (ImageInput(sha1=[5]), "sha1 is a int"),  # type: ignore[list-item]
        (ImageInput(md5=MD5.encode()), "md5 is a bytes"),  # type: ignore[arg-type]
        (ImageInput(md5=5), "md5 is a int"),  # type: ignore[arg-type]
    ],
)
def test_wrong_inputs_name_what_is_wrong(image: ImageInput, match: str) -> None:
    with pytest.raises(ClassificationError, match=match) as caught:
        to_source(image)
    assert caught.value.code is ErrorCode.INVALID_INPUT


def closed_mmap() -> mmap.mmap:
    closed = mmap.mmap(-1, 10)
    closed.close()
    return closed


class Unreadable:
    def __fspath__(self) -> str:
        raise LookupError("no name")


@pytest.mark.parametrize("make", [closed_mmap, Unreadable, lambda: Image.Image.__new__(Image.Image)])
def test_an_object_whose_own_code_raises_costs_itself_alone(make: Callable[[], object]) -> None:
    for image in (make(), ImageInput(data=make(), correlation_id="mine")):
        with pytest.raises(ClassificationError, match="cannot be read: it raised") as caught:
            to_source(image)
        assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.correlation_id == "mine"


def test_what_is_no_unicode_is_refused() -> None:
    with pytest.raises(ClassificationError, match="affiliate"):
        to_source(ImageInput(md5=MD5, affiliate="a\udc80"))
    with pytest.raises(ClassificationError, match="lone surrogate") as caught:
        to_source(ImageInput(md5=MD5, correlation_id="a\udc80"))
    assert caught.value.code is ErrorCode.CORRELATION_ID_INVALID
    str(caught.value).encode()


@pytest.mark.parametrize("value", ["", "x" * 65, 7])
def test_wrong_correlation_ids_have_their_own_code(value: object) -> None:
    with pytest.raises(ClassificationError) as caught:
        to_source(ImageInput(data=b"x", correlation_id=value))  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.CORRELATION_ID_INVALID


def test_an_error_carries_the_good_correlation_id() -> None:
    with pytest.raises(ClassificationError) as caught:
        to_source(ImageInput(md5="zz", correlation_id="mine"))
    assert caught.value.correlation_id == "mine"


def test_nothing_shows_data_or_hashes() -> None:
    image = ImageInput(data=b"SECRETBYTES", md5=MD5, sha1=SHA1)
    with pytest.raises(ClassificationError) as caught:
        to_source(ImageInput(md5=MD5 + "0"))
    for text in (repr(image), str(image), repr(to_source(image)), display_name(to_source(image)), repr(caught.value)):
        assert "SECRET" not in text
        assert MD5[:16].lower() not in text.lower()


def test_numpy_is_not_imported_to_tell_kinds_apart() -> None:
    code = (
        "import sys; import athena_async.images.inputs as i; i.to_source(b'x'); i.to_source('p');"
        "assert not {'numpy', 'cv2'} & set(sys.modules), 'imported'"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
