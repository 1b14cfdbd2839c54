"""Events as log lines, by structlog. An embedding program's configuration is never touched.

`LogObserver` is an observer for ``AthenaClient(observers=[...])``. `configure_logs` is for programs
whose output is ours: the command line and servers.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from athena_async import events

NAME = "athena_async"

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SECRETS = re.compile(r"(?i:bearer)\s+\S+|\beyJ[\w.-]{8,}|\b[0-9a-fA-F]{32,}\b")
_FREE_TEXT = ("message", "reason")

_LEVELS: dict[type[events.Event], int] = {
    events.Opened: logging.INFO,
    events.StreamOpened: logging.INFO,
    events.StreamClosed: logging.WARNING,
    events.EndpointEjected: logging.WARNING,
    events.EndpointReturned: logging.INFO,
    events.PoolResized: logging.INFO,
    events.ImagesRecovered: logging.INFO,
    events.GlobalErrorReceived: logging.WARNING,
    events.CredentialsRefreshed: logging.INFO,
    events.EncodingChanged: logging.INFO,
}
"""All others tell of each batch: DEBUG."""

_SHAPES: dict[type[events.Event], tuple[str, tuple[str, ...]]] = {
    kind: (_WORDS.sub("_", name).lower(), tuple(f.name for f in dataclasses.fields(kind) if f.name != "at_s"))
    for name, kind in vars(events).items()
    if isinstance(kind, type) and issubclass(kind, events.Event)
}
"""The name in the log and the fields of each event. The loop's clock is left out: lines have a time of their own."""


class LogObserver:
    """Logs each event under its name (``stream_closed``) with its fields, and the deployment's id.

    - What happens per batch is DEBUG, per stream INFO, and trouble WARNING.
    - Text that came from the service is scrubbed of what looks like a token or a hash.
    - One observer serves one client.

    Args:
        logger: a structlog logger; None takes structlog's own, named ``athena_async``, where the program
            has configured structlog, and the standard library's logger of that name elsewhere.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = _default_logger() if logger is None else logger
        self._is_enabled: Callable[[int], bool] = _always

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Opened):
            self._logger = self._logger.bind(deployment_id=event.deployment_id)
            self._is_enabled = _filter_of(self._logger)
        level = _level(event)
        if self._is_enabled(level):
            self._logger.log(level, _SHAPES[type(event)][0], **_fields(event))

    def __repr__(self) -> str:
        return "LogObserver()"


def _always(level: int) -> bool:
    return True


def _filter_of(logger: Any) -> Callable[[int], bool]:
    """What tells whether a level is written at all; not every version and kind of logger has it."""
    return getattr(logger, "is_enabled_for", None) or getattr(logger, "isEnabledFor", None) or _always


def _default_logger() -> Any:
    if structlog.is_configured():
        return structlog.stdlib.get_logger(NAME)
    return structlog.wrap_logger(
        logging.getLogger(NAME),
        processors=[structlog.stdlib.filter_by_level, _for_the_standard_library],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _for_the_standard_library(
    logger: Any, method: str, fields: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """A line for people, and the fields as ``record.athena`` for formatters that want them."""
    name = fields.pop("event")
    line = " ".join((name, *(f"{key}={value}" for key, value in fields.items())))
    return (line,), {"extra": {"athena": dict(fields)}}


def _level(event: events.Event) -> int:
    match event:
        case events.ImagesSettled():
            return logging.INFO if event.errors else logging.DEBUG
        case events.StreamClosed(code="OK", possibly_sent=0):
            return logging.INFO
        case events.StrayAnswers():
            return logging.WARNING if event.foreign_dropped else logging.DEBUG
        case events.Drained():
            return logging.WARNING if event.left else logging.INFO
        case _:
            return _LEVELS.get(type(event), logging.DEBUG)


def _fields(event: events.Event) -> dict[str, object]:
    fields = {name: getattr(event, name) for name in _SHAPES[type(event)][1]}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            fields[name] = {str(key): count for key, count in value.items()}
        elif name in _FREE_TEXT and isinstance(value, str):
            fields[name] = _SECRETS.sub("(not shown)", value)
    return fields


def configure_logs(json: bool, level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Configures structlog and the standard library's logging for a whole program. Not for libraries.

    Args:
        json: one JSON object per line with ``timestamp`` (ISO 8601, UTC), ``level``, ``event`` and fields;
            otherwise lines for people.
        level: the least level that is written, as a number or name. Other libraries write from WARNING on.
        stream: where to; None is stderr, as stdout is for results.
    """
    least = logging.getLevelNamesMapping()[level.upper()] if isinstance(level, str) else level
    target = sys.stderr if stream is None else stream
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Structlog's own choice, where rich is installed, prints the local variables of every frame: images, tokens.
    plain = structlog.dev.plain_traceback
    renderer: list[Any] = [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=plain)]
    if json:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _route_others(target, [structlog.stdlib.ExtraAdder(), *shared], renderer)


def _route_others(target: TextIO, shared: list[Any], renderer: list[Any]) -> None:
    """What others log through the standard library leaves in the same form, from WARNING on."""
    handler = logging.StreamHandler(target)
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
