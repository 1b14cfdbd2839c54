"""Every exception that athena_async raises, from one root.

    AthenaError
    ├── ConfigError (ValueError)      a configuration value is wrong; names field, value and what is allowed
    ├── ClientClosedError             the client is not open, or was closed while the call waited
    ├── MissingExtraError (ImportError)  an optional dependency is not installed; names the extra
    ├── CredentialsError              a token, key or certificate could not be had
    ├── RpcError                      ListDeployments failed; carries the code
    └── ClassificationError           one image has no classification; carries the code

No message, repr or argument ever holds image bytes, a token or an image hash.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why an image, or a call, has no answer. The first group are the service's own codes."""

    UNSPECIFIED = "UNSPECIFIED"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    MODEL_ERROR = "MODEL_ERROR"
    AFFILIATE_NOT_PERMITTED = "AFFILIATE_NOT_PERMITTED"
    DEPLOYMENT_ID_INVALID = "DEPLOYMENT_ID_INVALID"
    CORRELATION_ID_INVALID = "CORRELATION_ID_INVALID"

    INVALID_INPUT = "INVALID_INPUT"
    """The object handed in is not one of the kinds of image that the client takes."""
    INVALID_IMAGE = "INVALID_IMAGE"
    """The bytes are not a readable image: truncated, corrupt, empty or over the pixel cap."""
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    """The bytes are of a format that is not on the allow-list, or whose codec is missing here."""

    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    CLOSED = "CLOSED"
    """The client was closed before the image was answered."""
    INTERNAL = "INTERNAL"
    """A fault of this library or an unexpected status of the service."""

    @property
    def retryable(self) -> bool:
        """Whether the same image may succeed later, by the service's guides for integrators."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        ErrorCode.UNSPECIFIED,
        ErrorCode.MODEL_ERROR,
        ErrorCode.UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.RESOURCE_EXHAUSTED,
        ErrorCode.CLOSED,
    }
)


class AthenaError(Exception):
    """Root of everything this library raises on purpose."""


class ConfigError(AthenaError, ValueError):
    """A configuration value is wrong.

    Args:
        field: the field or environment variable, as the user wrote it (``pool.channels``).
        value: the value given; secrets are never passed here.
        allowed: what would be accepted, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}, but must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.allowed)


class ClientClosedError(AthenaError):
    """The client is not open: use it inside ``async with AthenaClient(...)``."""


class MissingExtraError(AthenaError, ImportError):
    """A feature needs an optional dependency.

    Args:
        feature: what was asked for, as the user wrote it.
        extra: the extra of athena-async that provides it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'athena-async[{extra}]'")
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.feature, self.extra)


class CredentialsError(AthenaError):
    """A token, key or certificate could not be had. The message never holds a secret."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class RpcError(AthenaError):
    """A call that is not about one image failed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[RpcError], tuple[ErrorCode, str]]:
        return type(self), (self.code, self.message)


class ClassificationError(AthenaError):
    """One image has no classification.

    Attributes:
        code: the service's code or one of ours.
        message: for people; names the remedy where there is one.
        retryable: whether the same image may succeed later.
        correlation_id: the image's id, or None where it had none yet.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        correlation_id: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}" + (f" (correlation id {correlation_id})" if correlation_id else ""))
        self.code = code
        self.message = message
        self.correlation_id = correlation_id
        self.retryable = code.retryable if retryable is None else retryable

    def __reduce__(self) -> tuple[object, ...]:
        return _restore_classification_error, (self.code, self.message, self.correlation_id, self.retryable)

    def __repr__(self) -> str:
        return f"ClassificationError({self.code}, {self.message!r}, correlation_id={self.correlation_id!r})"


def _restore_classification_error(
    code: ErrorCode, message: str, correlation_id: str | None, retryable: bool
) -> ClassificationError:
    return ClassificationError(code, message, correlation_id=correlation_id, retryable=retryable)
