"""What a caller may hand in as an image, and the one form that the rest of the client works with.

`to_source` decides by type alone: nothing is read, decoded or copied here, since it runs on the event
loop, once per image. A wrong input is an error of that image, told by `ClassificationError`.
"""

from __future__ import annotations

import os
import sys
from binascii import unhexlify
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from athena_async.config import IMAGE_SIDE, MAX_ID_LENGTH, RAW_FRAME_BYTES
from athena_async.errors import ClassificationError, ErrorCode

HASH_ONLY_BYTES = 256
"""What a hash-only input counts for when memory is admitted: its ids, hashes and bookkeeping."""

FRAME_SHAPE = (IMAGE_SIDE, IMAGE_SIDE, 3)

_KINDS_TEXT = (
    "hand in bytes, a path, a PIL image, a numpy array of shape (448, 448, 3), dtype uint8, in BGR order, "
    "or an ImageInput"
)


class Kind(Enum):
    """Where an image's pixels come from."""

    BYTES = "bytes"
    PATH = "path"
    PIL = "PIL image"
    ARRAY = "array"
    HASHES = "hashes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """An image with what is known about it. All fields are optional, but something must be there to classify.

    Attributes:
        data: bytes-like of an image file, a PIL image, or a (448, 448, 3) uint8 BGR array.
        path: a file to read instead; exclusive with ``data``.
        correlation_id: 1 to 64 characters, unique within the deployment; None makes one.
        affiliate: on whose behalf; None takes the client's.
        md5, sha1: hexadecimal digests of the original file, one or several. They are sent beside those
            that the client computes; without data and path they are all that is sent.

    ``repr`` shows neither data nor hashes.
    """

    data: Any = field(default=None, repr=False)
    path: str | os.PathLike[str] | None = None
    correlation_id: str | None = None
    affiliate: str | None = None
    md5: str | Iterable[str] | None = field(default=None, repr=False)
    sha1: str | Iterable[str] | None = field(default=None, repr=False)


@dataclass(slots=True)
class Source:
    """One image as the client works with it: valid in its kind, ids and hashes, nothing read yet.

    Attributes:
        kind: what ``value`` is.
        value: a buffer (BYTES), a str path (PATH), a PIL image, a (448, 448, 3) buffer or array (ARRAY),
            or None (HASHES).
        estimate_bytes: memory to admit before anything is read, the prepared frame included.
        md5, sha1: the caller's hashes, lower-case.
    """

    kind: Kind
    value: Any = field(repr=False)
    estimate_bytes: int
    correlation_id: str | None = None
    affiliate: str | None = None
    md5: tuple[str, ...] = field(default=(), repr=False)
    sha1: tuple[str, ...] = field(default=(), repr=False)


def to_source(image: object) -> Source:
    """Normalises what a caller handed in.

    Raises:
        ClassificationError: INVALID_INPUT for an object that is no image of a kind named in `ImageInput`,
            or has a malformed hash or affiliate; CORRELATION_ID_INVALID for a malformed id. It carries
            the image's correlation id where that one is good.
    """
    if not isinstance(image, ImageInput):
        return _from_strange(image)
    correlation_id = image.correlation_id
    if correlation_id is not None:
        _check_correlation_id(correlation_id)
    try:
        return _from_input(image)
    except ClassificationError as error:
        raise ClassificationError(error.code, error.message, correlation_id=correlation_id) from None


def display_name(source: Source) -> str:
    """A name for messages: the path, or the kind of input; never content."""
    return str(source.value) if source.kind is Kind.PATH else f"<{source.kind.value}>"


def _from_input(image: ImageInput) -> Source:
    md5 = () if image.md5 is None else _hashes("md5", image.md5, 32)
    sha1 = () if image.sha1 is None else _hashes("sha1", image.sha1, 40)
    affiliate = image.affiliate
    if affiliate is not None:
        _check_affiliate(affiliate)
    if image.data is None and image.path is None:
        if not md5 and not sha1:
            raise _invalid("ImageInput has nothing to classify: give data, path, md5 or sha1")
        return Source(Kind.HASHES, None, HASH_ONLY_BYTES, image.correlation_id, affiliate, md5, sha1)
    source = _from_strange(_the_one(image.data, image.path))
    source.correlation_id, source.affiliate, source.md5, source.sha1 = image.correlation_id, affiliate, md5, sha1
    return source


def _the_one(data: Any, path: Any) -> object:
    if path is None:
        if isinstance(data, ImageInput):
            raise _invalid("ImageInput.data is an ImageInput itself: hand that one in")
        return data
    if data is not None:
        raise _invalid("ImageInput has both data and path: give one of them")
    if not isinstance(path, str | os.PathLike):
        raise _invalid(f"ImageInput.path is a {type(path).__name__}, but must be a str or os.PathLike")
    return path


def _from_strange(image: object) -> Source:
    """Whatever an object's own code raises costs that image alone: a closed mmap, a path that cannot tell itself."""
    try:
        return _from_object(image)
    except ClassificationError:
        raise
    except Exception as error:  # noqa: BLE001 - anything may be handed in
        raise _invalid(f"{type(image).__name__} cannot be read: it raised {type(error).__name__}") from None


def _from_object(image: object) -> Source:
    if isinstance(image, bytes | bytearray):
        return Source(Kind.BYTES, image, len(image) + RAW_FRAME_BYTES)
    if isinstance(image, str):
        return _from_path(image)
    if isinstance(image, memoryview):
        return _from_memoryview(image)
    if _is_instance(image, "numpy", "ndarray"):
        return _from_array(image)
    if _is_instance(image, "PIL.Image", "Image"):
        return _from_pil(image)
    return _from_other(image)


def _is_instance(value: object, module: str, name: str) -> bool:
    """isinstance without importing: nobody holds an instance of a class whose module is not loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _from_other(image: Any) -> Source:
    """pathlib.Path, mmap, array.array and the like: what takes longest to tell."""
    if isinstance(image, os.PathLike):
        return _from_path(image)
    try:
        return _from_memoryview(memoryview(image))
    except TypeError:
        raise _invalid(f"{type(image).__name__} is not a kind of image: {_KINDS_TEXT}") from None


def _from_path(path: str | os.PathLike[str]) -> Source:
    name = os.fsdecode(path)
    if not name or "\0" in name:
        raise _invalid("a path must not be empty or contain a null character")
    return Source(Kind.PATH, name, 2 * RAW_FRAME_BYTES)


def _from_memoryview(view: memoryview) -> Source:
    try:
        if view.ndim == 1:
            return Source(Kind.BYTES, view, view.nbytes + RAW_FRAME_BYTES)
        return _from_array(view)
    except ValueError:
        raise _invalid("the memoryview was released before the image was taken") from None


def _from_array(array: Any) -> Source:
    """An ndarray, or a memoryview that was cast to three dimensions."""
    is_uint8 = array.format == "B" if isinstance(array, memoryview) else array.dtype.char == "B"
    if tuple(array.shape) != FRAME_SHAPE or not is_uint8:
        kind = array.format if isinstance(array, memoryview) else array.dtype
        raise _invalid(
            f"the array has shape {tuple(array.shape)} and type {kind}, but must have shape {FRAME_SHAPE}, "
            "dtype uint8, in BGR order; hand in the encoded file or a PIL image to have it resized"
        )
    return Source(Kind.ARRAY, array, array.nbytes)


def _from_pil(image: Any) -> Source:
    width, height = image.size
    return Source(Kind.PIL, image, width * height * len(image.getbands()) + RAW_FRAME_BYTES)


def _check_correlation_id(value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH or not _is_unicode(value):
        found = f"has {len(value)} characters" if isinstance(value, str) else f"is a {type(value).__name__}"
        if isinstance(value, str) and not _is_unicode(value):
            found = "has a lone surrogate, which is no character"
        raise ClassificationError(
            ErrorCode.CORRELATION_ID_INVALID,
            f"ImageInput.correlation_id {found}, but must be a text of 1 to {MAX_ID_LENGTH} characters",
        )


def _check_affiliate(value: object) -> None:
    if not (value and isinstance(value, str) and _is_unicode(value)):
        raise _invalid("ImageInput.affiliate must be a text that is not empty, or None")


def _is_unicode(value: str) -> bool:
    """Whether it can be sent: undecodable file names have lone surrogates in them."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hashes(name: str, given: Any, digits: int) -> tuple[str, ...]:
    if isinstance(given, str):
        return (_lower_hex(name, given, digits),)
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise _invalid(f"ImageInput.{name} is a {type(given).__name__}, but must be a str or several of them")
    return tuple([_lower_hex(name, value, digits) for value in given])


def _lower_hex(name: str, value: Any, digits: int) -> str:
    """The value itself is never shown, whatever it is: it may be a hash with one digit too many."""
    if isinstance(value, str) and _is_hex(value, digits):
        return value.lower()
    found = f"has {len(value)} characters" if isinstance(value, str) else f"is a {type(value).__name__}"
    raise _invalid(f"ImageInput.{name} {found}, but must be {digits} hexadecimal digits")


def _is_hex(value: str, digits: int) -> bool:
    try:
        return 2 * len(unhexlify(value)) == digits
    except ValueError:
        return False


def _invalid(message: str) -> ClassificationError:
    return ClassificationError(ErrorCode.INVALID_INPUT, message)
