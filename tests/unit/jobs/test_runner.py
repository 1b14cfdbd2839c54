from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from athena_async.errors import ErrorCode
from athena_async.jobs.ledger import RetryChoice
from athena_async.jobs.records import Record
from athena_async.jobs.runner import Job, RunLimits
from athena_async.jobs.sinks import NoSink, Sink, open_output, own_files
from athena_async.jobs.sources import CHUNK_FILES, FileSource, file_source
from athena_async.results import ClassificationResult, Outcome
from tests.unit.jobs.fakes import FakeClient, classified, failed

pytestmark = pytest.mark.anyio


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.jpg").write_bytes(b"x" * number)
    return folder


class ListSink(NoSink):
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed: bool | None = None

    def write(self, records: Sequence[Record]) -> None:
        self.records += records

    def close(self, *, complete: bool = True) -> None:
        self.closed = complete


class FullDisk(ListSink):
    def write(self, records: Sequence[Record]) -> None:
        raise OSError(28, "No space left on device")


def job(client: FakeClient, photos: Path, sink: Sink, **fields: object) -> Job:
    defaults: dict[str, object] = {"source": file_source([photos], recursive=True)}
    return Job(client=client, sink=sink, **(defaults | fields))  # type: ignore[arg-type]


async def test_each_file_is_classified_kept_and_counted_once(photos: Path) -> None:
    client, sink = FakeClient(), ListSink()
    run = job(client, photos, sink)
    await run.run()
    assert len(client.paths) == len(set(client.paths)) == 20
    assert {kept.entry.path: kept.entry.size_bytes for kept in sink.records} == {
        str(file): file.stat().st_size for file in photos.iterdir()
    }
    assert run.report.outcomes == {Outcome.CLASSIFIED: 20}
    assert run.report.is_complete
    assert sink.closed is True
    assert client.drain_timeouts == []


async def test_a_source_that_tells_a_file_twice_has_it_classified_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for number in range(CHUNK_FILES):
        (tmp_path / "more" / f"{number}").touch()
    client = FakeClient()
    sink = open_output(tmp_path / "out.jsonl")
    run = job(client, photos, sink, source=FileSource((str(photos), str(photos), str(tmp_path / "more"), str(photos))))
    await run.run()
    assert len(client.paths) == len(set(client.paths)) == 20 + CHUNK_FILES
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 20 + CHUNK_FILES


async def test_a_bad_file_fails_alone(photos: Path) -> None:
    def answer(path: str, index: int) -> ClassificationResult:
        return failed(index, ErrorCode.INVALID_IMAGE) if path.endswith("07.jpg") else classified(path, index)

    run = job(FakeClient(answer), photos, ListSink())
    await run.run()
    assert run.report.outcomes == {Outcome.CLASSIFIED: 19, Outcome.FAILED: 1}
    assert [Path(failure.path).name for failure in run.report.failures] == ["07.jpg"]


async def test_a_resume_classifies_what_is_new(photos: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    await job(FakeClient(), photos, open_output(output, resume=True, overwrite=False, choice=RetryChoice())).run()
    (photos / "new.jpg").touch()
    client = FakeClient()
    run = job(client, photos, open_output(output, resume=True, overwrite=False, choice=RetryChoice()))
    await run.run()
    assert [Path(path).name for path in client.paths] == ["new.jpg"]
    assert run.report.skipped == {Outcome.CLASSIFIED: 20}
    assert run.report.is_complete
    assert len(Path(output).read_bytes().splitlines()) == 21


async def test_a_run_that_skips_failures_is_not_complete(photos: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    for _ in range(2):
        client = FakeClient(lambda path, index: failed(index, ErrorCode.INVALID_IMAGE))
        run = job(client, photos, open_output(output, resume=True, overwrite=False, choice=RetryChoice()))
        await run.run()
        assert not run.report.is_complete
    assert client.paths == []


async def test_the_output_within_the_folder_is_no_image(photos: Path) -> None:
    output = str(photos / "out.jsonl")
    client = FakeClient()
    sink = open_output(output, resume=True, overwrite=False, choice=RetryChoice())
    await job(client, photos, sink, left_out=own_files(output)).run()
    assert len(client.paths) == 20


async def test_a_stop_drains_and_tells_what_is_left(photos: Path) -> None:
    client, sink = FakeClient(hold_from=5), ListSink()
    run = job(client, photos, sink, limits=RunLimits(drain_timeout_s=3.5))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.run)
        await client.holding.wait()
        run.stop.set("told to")
    assert client.drain_timeouts == [3.5]
    assert len(client.paths) == 6
    assert len(sink.records) == 5
    assert run.report.left_count == 1
    assert run.report.stopped == "told to"
    assert sink.closed is True


async def test_a_service_that_refuses_everything_stops_the_run(photos: Path) -> None:
    client = FakeClient(lambda path, index: failed(index, ErrorCode.UNAUTHENTICATED, "token refused"))
    run = job(client, photos, ListSink(), limits=RunLimits(refusals=4))
    await run.run()
    assert len(client.paths) == 4
    assert run.report.stopped == "the last 4 images were refused: token refused"
    assert run.report.is_refused


async def test_refusals_can_be_borne(photos: Path) -> None:
    client = FakeClient(lambda path, index: failed(index, ErrorCode.UNAVAILABLE))
    run = job(client, photos, ListSink(), limits=RunLimits(refusals=0))
    await run.run()
    assert len(client.paths) == 20


async def test_a_full_disk_ends_the_run_with_its_own_error(photos: Path) -> None:
    sink = FullDisk()
    with pytest.raises(OSError, match="No space left"):
        await job(FakeClient(), photos, sink).run()
    assert sink.closed is False


async def test_cancellation_abandons_the_output(photos: Path) -> None:
    client, sink = FakeClient(hold_from=0), ListSink()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(job(client, photos, sink).run)
        await client.holding.wait()
        tasks.cancel_scope.cancel()
    assert sink.closed is False


async def test_nothing_is_held_once_a_run_is_over(photos: Path) -> None:
    run = job(FakeClient(), photos, ListSink())
    await run.run()
    assert run._open == {}
    assert run._taken == set()


async def test_lines_are_in_the_file_before_the_run_returns(photos: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    await job(FakeClient(), photos, open_output(output, resume=False, overwrite=False, choice=RetryChoice())).run()
    lines = [json.loads(line) for line in Path(output).read_bytes().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(str(file) for file in photos.iterdir())
