"""A resumable run over many files: see docs/jobs.md.

job = Job(client, file_source(["photos"], recursive=True), open_output("results.jsonl", resume=True))
await job.run()
"""

from athena_async.jobs.ledger import LedgerError, RetryChoice
from athena_async.jobs.records import Record
from athena_async.jobs.report import Failure, Report
from athena_async.jobs.runner import Job, RunLimits, Stop
from athena_async.jobs.sinks import FileSink, NoSink, Sink, StreamSink, open_output, own_files
from athena_async.jobs.sources import FileEntry, FileSource, file_source

__all__ = [
    "Failure",
    "FileEntry",
    "FileSink",
    "FileSource",
    "Job",
    "LedgerError",
    "NoSink",
    "Record",
    "Report",
    "RetryChoice",
    "RunLimits",
    "Sink",
    "Stop",
    "StreamSink",
    "file_source",
    "open_output",
    "own_files",
]
