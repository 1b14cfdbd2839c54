"""One image, from source to payload."""

from __future__ import annotations

from athena_async.config import PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.encode import Rendered
from athena_async.images.inputs import Kind, Source
from athena_async.images.original import Prepared, prepare_original, read_original
from athena_async.images.render import render_array, render_picture
from athena_async.wire import Encoding, ImageFormat, Payload


def prepare(source: Source, config: PreprocessConfig, encoding: str) -> Payload:
    """Reads, hashes, decodes, orients, resizes and encodes; a pure function of the source's bytes.

    Hashes are of the original file's bytes. Arrays and PIL images have no original file: only the
    caller's own hashes go with them.

    Args:
        source: as `inputs.to_source` made it.
        encoding: ``none``, ``webp``, ``png`` or ``brotli``; ``auto`` is resolved before.

    Raises:
        ClassificationError: INVALID_IMAGE, UNSUPPORTED_FORMAT, or INVALID_INPUT for a file that cannot be read.
    """
    match source.kind:
        case Kind.HASHES:
            return Payload(b"", md5=source.md5, sha1=source.sha1)
        case Kind.ARRAY:
            return _payload(render_array(source.value, encoding), source)
        case Kind.PIL:
            return _payload(render_picture(source.value, config, encoding), source)
        case Kind.PATH:
            data: bytes | bytearray = read_original(source.value, config.max_file_bytes)
        case Kind.BYTES:
            data = whole_bytes(source.value)
    return original_payload(prepare_original(data, config, encoding), source)


def original_payload(prepared: Prepared, source: Source) -> Payload:
    """The payload of an original, with the caller's hashes beside the computed ones and none twice."""
    md5 = _with(prepared.md5, source.md5)
    sha1 = _with(prepared.sha1, source.sha1)
    return _payload(prepared.rendered, source)._replace(md5=md5, sha1=sha1, original_bytes=prepared.original_bytes)


def whole_bytes(buffer: bytes | bytearray | memoryview) -> bytes | bytearray:
    """The buffer itself where it is bytes, and else a copy of what it shows.

    Raises:
        ClassificationError: INVALID_INPUT for a memoryview that was released meanwhile.
    """
    if not isinstance(buffer, memoryview):
        return buffer
    try:
        return buffer.tobytes()
    except ValueError:
        raise ClassificationError(
            ErrorCode.INVALID_INPUT, "the memoryview was released before the image was read"
        ) from None


def _payload(rendered: Rendered, source: Source) -> Payload:
    encoding = Encoding.BROTLI if rendered.brotli else Encoding.UNCOMPRESSED
    return Payload(rendered.data, ImageFormat[rendered.format], encoding, source.md5, source.sha1)


def _with(computed: str | None, given: tuple[str, ...]) -> tuple[str, ...]:
    return given if computed is None or computed in given else (computed, *given)
