from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cli.harness import athena, emulator, make_photos, read_lines, start


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with emulator() as address:
        yield address


@pytest.fixture(scope="module")
def slow_endpoint() -> Iterator[str]:
    """One image each 20 ms."""
    with emulator("--model", "per_image_s=0.02", "--model", "parallelism=1") as address:
        yield address


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_folder_with_a_broken_file(tmp_path: Path, endpoint: str) -> None:
    paths = make_photos(tmp_path / "photos", 30)
    (tmp_path / "photos" / "deep").mkdir()
    paths[0].rename(tmp_path / "photos" / "deep" / "0000.png")
    (tmp_path / "photos" / "notes.png").write_text("no image")
    output = tmp_path / "out.jsonl"
    ended = athena("classify", tmp_path / "photos", "-r", "-o", output, "--endpoint", endpoint, "--no-tls")
    assert ended.returncode == 1
    assert "CLASSIFIED 30" in ended.stdout
    assert "notes.png  UNSUPPORTED_FORMAT" in ended.stdout
    lines = {Path(str(line["path"])).name: line for line in read_lines(output)}
    assert len(lines) == 31
    assert lines["0000.png"]["outcome"] == "CLASSIFIED"
    assert str(lines["0000.png"]["top"]).startswith("UnknownCSAM-")
    assert lines["notes.png"]["error_code"] == "UNSUPPORTED_FORMAT"
    assert lines["notes.png"]["attempts"] == 0


def test_one_image_with_the_built_in_emulator(tmp_path: Path) -> None:
    (photo,) = make_photos(tmp_path / "photos", 1)
    ended = athena("classify", photo, "--emulator")
    assert ended.returncode == 0, ended.stderr
    assert "UnknownCSAM-" in ended.stdout
    assert "CLASSIFIED 1" in ended.stdout


def test_lines_on_standard_output_and_nothing_else_there(tmp_path: Path, endpoint: str) -> None:
    make_photos(tmp_path / "photos", 5)
    ended = athena("classify", tmp_path / "photos", "-o", "-", "--endpoint", endpoint, "--no-tls")
    assert ended.returncode == 0
    assert [json.loads(line)["outcome"] for line in ended.stdout.splitlines()] == ["CLASSIFIED"] * 5
    assert "Summary" in ended.stderr


def test_parquet_is_written_and_resumed(tmp_path: Path, endpoint: str) -> None:
    import pyarrow.parquet as pq

    make_photos(tmp_path / "photos", 5)
    output = tmp_path / "out.parquet"
    command = ("classify", tmp_path / "photos", "-o", output, "--resume", "--endpoint", endpoint, "--no-tls")
    assert athena(*command).returncode == 0
    make_photos(tmp_path / "photos" / "more", 2)
    assert athena(*command, "--recursive").returncode == 0
    rows = pq.read_table(output).to_pylist()
    assert len({row["path"] for row in rows}) == len(rows) == 7
    assert {row["run"] for row in rows} == {1, 2}


def test_a_second_run_needs_to_be_told_what_to_do(tmp_path: Path, endpoint: str) -> None:
    make_photos(tmp_path / "photos", 2)
    command = ("classify", tmp_path / "photos", "-o", tmp_path / "out.jsonl", "--endpoint", endpoint, "--no-tls")
    assert athena(*command).returncode == 0
    again = athena(*command)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = athena(*command, "--resume")
    assert resumed.returncode == 0
    assert "settled in an earlier run: 2 CLASSIFIED" in resumed.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drains_and_the_rest_is_resumed(
    tmp_path: Path, slow_endpoint: str, number: signal.Signals, code: int
) -> None:
    make_photos(tmp_path / "photos", 150)
    output = tmp_path / "out.jsonl"
    command = ("classify", tmp_path / "photos", "-o", output, "--endpoint", slow_endpoint, "--no-tls")
    with start(*command, "--drain-timeout", "0.2") as process:
        until(lambda: output.exists() and output.stat().st_size > 0)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == code
    assert f"stopped ({number.name})" in stderr
    assert "--resume goes on from here" in stderr
    kept = read_lines(output)
    assert 0 < len(kept) < 150
    assert athena(*command, "--resume", "--retry-unknown").returncode == 0
    lines = read_lines(output)
    assert len({line["path"] for line in lines}) == len(lines) == 150
    assert {line["outcome"] for line in lines} == {"CLASSIFIED"}
    assert [line for line in kept if line["outcome"] == "CLASSIFIED"] == [line for line in lines if line["run"] == 1]


def test_a_second_signal_ends_at_once(tmp_path: Path, slow_endpoint: str) -> None:
    make_photos(tmp_path / "photos", 300)
    output = tmp_path / "out.jsonl"
    command = ("classify", tmp_path / "photos", "-o", output, "--endpoint", slow_endpoint, "--no-tls")
    with start(*command, "--drain-timeout", "300") as process:
        until(lambda: output.exists() and output.stat().st_size > 0)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        until(lambda: "waiting up to 300 s" in process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=3)
    assert process.returncode == 143


def test_an_unreachable_service_is_told_at_once_and_leaves_no_output(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 3)
    output = tmp_path / "out.jsonl"
    ended = athena("classify", tmp_path / "photos", "-o", output, "--endpoint", "127.0.0.1:1", "--no-tls")
    assert ended.returncode == 3
    assert ended.stderr.startswith("athena-async: UNAVAILABLE")
    assert len(ended.stderr.splitlines()) == 1
    assert not output.exists()


def test_a_refused_token_is_told_at_once_and_never_shown(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 3)
    with emulator("--api-key", "right") as address:
        ended = athena(
            "classify", tmp_path / "photos", "--endpoint", address, "--no-tls", ATHENA_API_KEY="wrong-canary"
        )
    assert ended.returncode == 3
    assert "UNAUTHENTICATED" in ended.stderr
    assert "canary" not in ended.stdout + ended.stderr


def test_a_service_that_refuses_every_image_stops_the_run_which_goes_on_later(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 300)
    output = tmp_path / "out.jsonl"
    command = ("classify", tmp_path / "photos", "-o", output, "--no-tls", "--affiliate", "acme")
    with emulator("--affiliate", "other") as address:
        ended = athena(*command, "--endpoint", address, "--stop-after", "5")
    assert ended.returncode == 3
    assert "AFFILIATE_NOT_PERMITTED" in ended.stdout
    assert "stopped (the last " in ended.stderr
    with emulator("--affiliate", "acme") as address:
        assert athena(*command, "--endpoint", address, "--resume").returncode == 0
    lines = read_lines(output)
    assert len({line["path"] for line in lines}) == len(lines) == 300
    assert {line["outcome"] for line in lines} == {"CLASSIFIED"}


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path, endpoint: str) -> None:
    make_photos(tmp_path / "photos", 3)
    with start("classify", tmp_path / "photos", "-o", "-", "--endpoint", endpoint, "--no-tls") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        complaints = process.stderr.read()
    assert process.returncode == 141
    assert complaints == ""


@pytest.mark.parametrize("debug", [True, False])
def test_an_error_is_one_line_and_a_traceback_only_with_debug(tmp_path: Path, debug: bool) -> None:
    flags = ("--debug",) if debug else ()
    ended = athena(*flags, "classify", tmp_path / "nowhere")
    assert ("Traceback" in ended.stderr) is debug
    if not debug:
        assert ended.returncode == 2
        assert ended.stderr.splitlines() == [
            f"athena-async: PATH is '{tmp_path}/nowhere', but must be an existing file or directory"
        ]


def test_an_output_that_cannot_be_written_is_exit_4(tmp_path: Path, endpoint: str) -> None:
    (photo,) = make_photos(tmp_path / "photos", 1)
    ended = athena("classify", photo, "-o", tmp_path / "no" / "out.jsonl", "--endpoint", endpoint, "--no-tls")
    assert ended.returncode == 4
    assert len(ended.stderr.splitlines()) == 1
