"""Events as log lines."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog
from structlog.testing import capture_logs

from athena_async import events
from athena_async.observability.logs import LogObserver, configure_logs

from .conftest import ALL, CANARY_HASH, CANARY_TOKEN, ENDPOINT, OPENED


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Logging as it was, afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_kind_of_event_is_known() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    assert {type(event) for event in ALL} == kinds - {events.Event}


def test_json_lines_have_the_fields_that_log_collectors_need() -> None:
    stream = io.StringIO()
    configure_logs(json=True, level="debug", stream=stream)
    observer = LogObserver()
    for event in ALL:
        observer(event)
    found = lines(stream)
    assert len(found) == len(ALL)
    for line in found:
        assert datetime.fromisoformat(str(line["timestamp"])).utcoffset() == timedelta(0)
        assert line["level"] in ("debug", "info", "warning")
        assert line["deployment_id"] == "team-7"
        assert "at_s" not in line
    answered = next(line for line in found if line["event"] == "batch_answered")
    assert (answered["correlation_id"], answered["latency_s"]) == ("image-1", 0.03)
    settled = next(line for line in found if line["event"] == "images_settled")
    assert settled["errors"] == {"INVALID_IMAGE": 2}


def test_no_line_holds_a_token_or_hash() -> None:
    stream = io.StringIO()
    configure_logs(json=True, level="debug", stream=stream)
    observer = LogObserver()
    for event in ALL:
        observer(event)
    assert "(not shown)" in stream.getvalue()
    for canary in (CANARY_TOKEN, CANARY_HASH):
        assert canary not in stream.getvalue()


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.BatchSent(1.0, ENDPOINT, 1, 1, 1, 0), "debug"),
        (events.StreamOpened(1.0, ENDPOINT, 1), "info"),
        (events.StreamClosed(1.0, ENDPOINT, 1, "OK", "", 0), "info"),
        (events.StreamClosed(1.0, ENDPOINT, 1, "OK", "", 1), "warning"),
        (events.StreamClosed(1.0, ENDPOINT, 1, "UNAVAILABLE", "", 0), "warning"),
        (events.ImagesSettled(1.0, {}, {}, 0.1), "debug"),
        (events.StrayAnswers(1.0, 1, 1, 0), "debug"),
        (events.StrayAnswers(1.0, 0, 0, 1), "warning"),
        (events.Drained(1.0, 0), "info"),
        (events.Drained(1.0, 1), "warning"),
    ],
)
def test_levels(event: events.Event, level: str) -> None:
    with capture_logs() as found:
        LogObserver(structlog.get_logger())(event)
    assert [line["log_level"] for line in found] == [level]


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure_logs(json=True, level=logging.WARNING, stream=stream)
    observer = LogObserver()
    for event in ALL:
        observer(event)
    assert {line["level"] for line in lines(stream)} == {"warning"}


def test_lines_for_people() -> None:
    stream = io.StringIO()
    configure_logs(json=False, level="info", stream=stream)
    LogObserver()(events.StreamOpened(1.0, ENDPOINT, 3))
    assert "stream_opened" in stream.getvalue()
    assert "channel_id=3" in stream.getvalue()


def test_what_others_log_has_the_same_form_from_warning_on() -> None:
    stream = io.StringIO()
    configure_logs(json=True, level="debug", stream=stream)
    logging.getLogger("another").info("chatter")
    logging.getLogger("another").warning("trouble %s", "here", extra={"size_bytes": 3})
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["size_bytes"]) == ("trouble here", "warning", 3)


def test_an_unconfigured_program_gets_standard_logging(caplog: pytest.LogCaptureFixture, capsys) -> None:
    caplog.set_level(logging.INFO, logger="athena_async")
    observer = LogObserver()
    observer(OPENED)
    observer(events.StreamOpened(1.0, "100%:1", 3))
    observer(events.BatchSent(1.0, ENDPOINT, 1, 1, 1, 0))
    record = caplog.records[-1]
    assert record.name == "athena_async"
    assert record.getMessage() == "stream_opened deployment_id=team-7 endpoint=100%:1 channel_id=3"
    assert record.athena == {"deployment_id": "team-7", "endpoint": "100%:1", "channel_id": 3}
    assert capsys.readouterr().out == ""


def test_a_configured_program_keeps_its_own_structlog() -> None:
    seen: list[dict[str, object]] = []

    def keep(logger: object, method: str, fields: dict[str, object]) -> dict[str, object]:
        seen.append(dict(fields))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    LogObserver()(events.StreamOpened(1.0, ENDPOINT, 3))
    assert [line["event"] for line in seen] == ["stream_opened"]


def test_importing_and_observing_configure_nothing() -> None:
    program = """
import logging, structlog
import athena_async.observability.logs as logs
from athena_async.events import Opened
logs.LogObserver()(Opened(1.0, "d", "a", True))
assert not structlog.is_configured()
assert not logging.root.handlers and logging.root.level == logging.WARNING
assert not logging.getLogger("athena_async").handlers
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
