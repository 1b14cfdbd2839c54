"""``make demo``: some 200 real images against a local Athena, from set-up to summary.

Exits 0 when every image was classified but for the two broken ones, which must fail, each by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo_images import BROKEN, ensure_demo_images
from rich.console import Console

import athena_async
from athena_async.cli.run import ClassifyRun, Finished, run_classification
from athena_async.cli.summary import print_summary
from athena_async.config import ClientConfig
from athena_async.jobs.sinks import NoSink
from athena_async.jobs.sources import file_source

_CACHE = Path(__file__).resolve().parent.parent / ".cache"
_STOP_TIMEOUT_S = 10.0


def main() -> int:
    console = Console()
    folder = ensure_demo_images(_CACHE, lambda: console.print("making the images, on the first run only ..."))
    source = file_source([folder], recursive=True)
    with emulator() as endpoint:
        console.print(f"emulator on {endpoint}; classifying what is in {os.path.relpath(folder)}")
        config = ClientConfig(endpoints=(endpoint,), tls=False, affiliate="demo")
        run = ClassifyRun(config=config, source=source, open_sink=NoSink, progress=console)
        finished = athena_async.run(run_classification(run))
    print_summary(console, finished.report, finished.sent_bytes)
    return verdict(console, finished)


@contextmanager
def emulator() -> Iterator[str]:
    """A process of its own, as a service is. Yields its ``host:port``."""
    command = [sys.executable, "-m", "athena_async.cli", "emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            announced = process.stdout.readline()
            if not announced:
                raise SystemExit("demo: the emulator did not start")
            yield json.loads(announced)["grpc"]
        finally:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)


def verdict(console: Console, finished: Finished) -> int:
    """0 where exactly the broken files failed."""
    failed = {Path(failure.path).name for failure in finished.report.failures}
    if finished.signal_number is not None:
        return finished.exit_code
    if failed != BROKEN or finished.report.unreadable_count or finished.report.stopped:
        console.print(f"demo: expected exactly {', '.join(sorted(BROKEN))} to fail", style="bold red")
        return 1
    console.print("The two broken files failed, each alone; everything else was classified.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
