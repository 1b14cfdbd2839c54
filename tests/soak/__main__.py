"""``make soak``: images through a TCP proxy and a service that both misbehave at random, for 20 minutes.

    python -m tests.soak [--minutes 20] [--seed N]
    python -m tests.soak --minutes 10 --leak 1      must end with exit code 1

The emulator is a process of its own. At the end it is asked what it was sent, and this process what it holds. Ends by
itself, and with exit code 1 where a promise did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from athena_async import (
    AthenaClient,
    BreakerConfig,
    ClientConfig,
    ImageInput,
    LimitsConfig,
    Outcome,
    PoolConfig,
    RetryConfig,
)
from athena_async.emulator.process import EmulatorProcess
from athena_async.events import Event, StreamClosed
from athena_async.stats import ClientStats
from tests.faults.proxy import FaultProxy
from tests.soak.watch import MiB, Sample, Watch, slope, take, trim

_QUIET_S = 20.0
_MODEL = {"fixed_s": 0.02, "per_image_s": 0.0005, "parallelism": 16}
_RAW_SHARE = 0.02


@dataclass
class Account:
    """What became of the images. ``seen[i]`` counts the results of image ``i``."""

    seen: bytearray = field(default_factory=bytearray)
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    sources: int = 0


def config(address: str) -> ClientConfig:
    return ClientConfig(
        endpoints=(address,),
        affiliate="soak",
        tls=False,
        timeout_s=60.0,
        pool=PoolConfig(ping_interval_s=2.0, ping_timeout_s=2.0, probe_interval_s=0.5, max_age_s=30.0),
        retry=RetryConfig(grace_min_s=0.5, grace_max_s=5.0),
        breaker=BreakerConfig(ejection_base_s=1.0, ejection_max_s=10.0),
        limits=LimitsConfig(max_in_flight=1000, max_in_flight_bytes=64 * MiB),
    )


async def images(account: Account, rng: random.Random, until_s: float, pace_per_s: float) -> AsyncIterator[object]:
    """Hash-only inputs, and a raw frame now and then, at a pace that leaves the machine to others."""
    frame = bytes(448 * 448 * 3)
    header = b"P6 448 448 255\n"
    started_s = time.monotonic()
    while time.monotonic() < until_s:
        number = account.sources
        account.sources += 1
        account.seen.append(0)
        if rng.random() < _RAW_SHARE:
            yield ImageInput(data=header + frame)
        else:
            yield ImageInput(md5=f"{number:032x}")
        ahead_s = account.sources / pace_per_s - (time.monotonic() - started_s)
        if ahead_s > 0.05:
            await asyncio.sleep(ahead_s)


async def misbehave(proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random, dealt: Counter[str]) -> None:
    """One fault after the other, until cancelled; each is mended when its time is over, or then."""
    while True:
        await asyncio.sleep(rng.uniform(0.5, 4.0))
        kind = rng.choice(list(_FAULTS))
        dealt[kind] += 1
        await _FAULTS[kind](proxy, emulator, rng)


async def _reset(proxy: FaultProxy, _emulator: EmulatorProcess, _rng: random.Random) -> None:
    proxy.reset()


async def _half_close(proxy: FaultProxy, _emulator: EmulatorProcess, _rng: random.Random) -> None:
    proxy.half_close()


async def _hole(proxy: FaultProxy, _emulator: EmulatorProcess, rng: random.Random) -> None:
    proxy.hole = True
    try:
        await asyncio.sleep(rng.uniform(1.0, 6.0))
    finally:
        proxy.hole = False
        proxy.reset()


async def _slow(proxy: FaultProxy, _emulator: EmulatorProcess, rng: random.Random) -> None:
    before = proxy.pause_s, proxy.slice_bytes
    proxy.pause_s, proxy.slice_bytes = 0.02, rng.choice([7, 100, 4096])
    try:
        await asyncio.sleep(rng.uniform(0.5, 2.0))
    finally:
        proxy.pause_s, proxy.slice_bytes = before


async def _away(proxy: FaultProxy, _emulator: EmulatorProcess, rng: random.Random) -> None:
    proxy.refusing = True
    proxy.reset()
    try:
        await asyncio.sleep(rng.uniform(0.5, 5.0))
    finally:
        proxy.refusing = False


async def _ask(emulator: EmulatorProcess, method: str, path: str, body: dict[str, object] | None = None) -> object:
    return await asyncio.to_thread(emulator.ask, method, path, body)


async def _drop(_proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random) -> None:
    loses = {"drop_streams": 0.05, "drop_loses_request": rng.random() < 0.5}
    await _plan(emulator, loses, rng.uniform(1.0, 3.0))


async def _noise(_proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random) -> None:
    await _plan(emulator, {"duplicate": 0.1, "reorder": 0.3, "delay": 0.1}, rng.uniform(1.0, 4.0))


async def _omit(_proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random) -> None:
    await _plan(emulator, {"omit": 0.05}, rng.uniform(0.5, 2.0))


async def _errors(_proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random) -> None:
    await _plan(emulator, {"image_errors": 0.05, "global_errors": 0.02}, rng.uniform(0.5, 2.0))


async def _refuse(_proxy: FaultProxy, emulator: EmulatorProcess, rng: random.Random) -> None:
    await _plan(emulator, {"refuse": 0.7, "half_close": 0.05}, rng.uniform(0.5, 3.0))


async def _go_away(_proxy: FaultProxy, emulator: EmulatorProcess, _rng: random.Random) -> None:
    await _ask(emulator, "POST", "/goaway")


async def _stall(_proxy: FaultProxy, _emulator: EmulatorProcess, rng: random.Random) -> None:
    time.sleep(rng.uniform(0.5, 3.0))


_FAULTS = {
    "reset": _reset,
    "half-close": _half_close,
    "hole": _hole,
    "slow and in slices": _slow,
    "away": _away,
    "streams dropped": _drop,
    "answers twice, late, out of order": _noise,
    "answers omitted": _omit,
    "image and global errors": _errors,
    "calls refused": _refuse,
    "GOAWAY": _go_away,
    "loop stalled": _stall,
}


async def _plan(emulator: EmulatorProcess, plan: dict[str, object], seconds: float) -> None:
    """Puts a plan of the emulator's in force for a while."""
    begun = asyncio.ensure_future(_ask(emulator, "PATCH", "/faults", plan))
    try:
        await asyncio.shield(begun)
        await asyncio.sleep(seconds)
    finally:
        await asyncio.wait({begun})
        await asyncio.shield(_ask(emulator, "PATCH", "/faults", {name: type(value)() for name, value in plan.items()}))


async def leak(mib_per_min: float) -> None:
    """Holds ever more memory, to see the run fail."""
    held: list[bytes] = []
    while True:
        held.append(b"x" * int(mib_per_min * MiB / 60))
        await asyncio.sleep(1.0)


async def classify(client: AthenaClient, account: Account, source: AsyncIterator[object]) -> None:
    async for result in client.stream(source):
        account.seen[result.index] = min(255, account.seen[result.index] + 1)
        account.outcomes[str(result.outcome)] += 1
        if result.error is not None:
            account.errors[str(result.error.code)] += 1


@dataclass
class Run:
    """Everything that the end is judged by."""

    account: Account
    dealt: Counter[str]
    samples: list[Sample]
    before: Sample
    after: Sample
    left_bytes: int
    stats: ClientStats
    billed: int
    billed_images: int
    possibly_sent: int
    minutes: float

    @property
    def _is_short(self) -> bool:
        """Too short to tell growth from warming up."""
        return self.minutes < 10

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        account, stats = self.account, self.stats
        resends = self.billed - self.billed_images
        growth_bytes_per_min = slope(self.samples, lambda sample: sample.resident_bytes) * 60
        held_bytes_per_min = slope(self.samples, lambda sample: sample.heap.held_bytes) * 60
        checks = {
            "P1: every image has a result": account.seen.count(0) == 0,
            "P2: no image has two": account.seen.count(0) + account.seen.count(1) == account.sources,
            "P3: no resend is uncounted": resends <= stats.resent_count,
            "P3: resends within the budget": stats.resent_count <= 1000 + 0.1 * account.sources,
            "P9: nothing held at the end": stats.in_flight_bytes == 0,
            "P9: memory does not grow by more than 1 MiB a minute": growth_bytes_per_min <= MiB or self._is_short,
            "P9: what is held does not grow by more than 0.25 MiB a minute": held_bytes_per_min <= MiB / 4
            or self._is_short,
            "tasks end": self.after.tasks <= self.before.tasks,
            # AnyIO keeps idle workers, gRPC one thread that polls, until the loop ends.
            "threads end": self.after.threads <= self.before.threads + 1 + (os.cpu_count() or 1),
            "descriptors are closed": self.after.descriptors <= self.before.descriptors + 8,
            "most images are classified": account.outcomes[Outcome.CLASSIFIED] >= 0.9 * account.sources,
        }
        return [promise for promise, holds in checks.items() if not holds]

    def report(self) -> str:
        account, samples = self.account, self.samples
        tasks, threads = [s.tasks for s in samples], [s.threads for s in samples]
        descriptors, resident = [s.descriptors for s in samples], [s.resident_bytes / MiB for s in samples]
        quarters = [(len(samples) - 1) * part // 4 for part in range(5)]
        heaps = [samples[at].heap for at in quarters]
        missing = account.seen.count(0)
        lines = [
            f"{account.sources} images: {dict(account.outcomes)}, errors {dict(account.errors)}",
            f"{missing} missing, {account.sources - missing - account.seen.count(1)} twice",
            f"faults: {sum(self.dealt.values())}, {dict(self.dealt)}",
            f"{self.possibly_sent} images on streams that were lost; resent {self.stats.resent_count}, for whatever "
            f"reason, by our count; billed again {self.billed - self.billed_images} by the "
            f"emulator's; late answers {self.stats.late_count}",
            f"resident memory at each quarter {', '.join(f'{resident[at]:.0f}' for at in quarters)} MiB; of malloc's "
            f"in use {', '.join(f'{heap.used_bytes / MiB:.0f}' for heap in heaps)}, "
            f"kept {', '.join(f'{heap.kept_bytes / MiB:.0f}' for heap in heaps)}; "
            f"the interpreter's blocks {', '.join(f'{heap.python_blocks:,}' for heap in heaps)}",
            f"resident memory {min(resident):.0f} to {max(resident):.0f} MiB, "
            f"{slope(samples, lambda sample: sample.resident_bytes) * 60 / MiB:+.2f} MiB a minute over the later two "
            f"thirds, {slope(samples, lambda sample: sample.heap.held_bytes) * 60 / MiB:+.2f} of what is held; "
            f"{self.left_bytes / MiB:.0f} MiB once the client is closed and malloc gave back what it keeps",
            f"tasks {min(tasks)} to {max(tasks)}, {self.before.tasks} before and {self.after.tasks} after",
            f"threads {min(threads)} to {max(threads)}, {self.before.threads} before and {self.after.threads} after",
            f"descriptors {min(descriptors)} to {max(descriptors)}, {self.before.descriptors} before and "
            f"{self.after.descriptors} after",
        ]
        return "\n".join(lines)


async def soak(minutes: float, seed: int, pace_per_s: float, leak_mib_per_min: float = 0.0) -> Run:
    rng = random.Random(seed)
    account, dealt = Account(), Counter[str]()
    before = take()
    lost: Counter[str] = Counter()

    def note(event: Event) -> None:
        if isinstance(event, StreamClosed):
            lost["images"] += event.possibly_sent

    with EmulatorProcess(model=_MODEL, audit_limit=10_000_000) as emulator:
        async with FaultProxy(emulator.address) as proxy:
            watch = Watch(max(0.5, minutes / 4))
            async with AthenaClient(config(proxy.address), seed=seed, observers=[note]) as client:
                until_s = time.monotonic() + minutes * 60
                work = asyncio.create_task(classify(client, account, images(account, rng, until_s, pace_per_s)))
                watching = asyncio.create_task(watch.run())
                leaking = asyncio.create_task(leak(leak_mib_per_min))
                faults = asyncio.create_task(misbehave(proxy, emulator, random.Random(seed + 1), dealt))
                await asyncio.sleep(minutes * 60)
                faults.cancel()
                with suppress(asyncio.CancelledError):
                    await faults
                proxy.reset()
                await asyncio.wait_for(work, 60.0 + _QUIET_S)
                watching.cancel()
                leaking.cancel()
                stats = client.stats()
            trim()
            left_bytes = take().resident_bytes
        sends = Counter(row["correlation_id"] for row in await asyncio.to_thread(emulator.audit) if row["billed"])
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.sleep(1.0)  # Core's own threads and sockets end a little later
    after = take()
    return Run(
        account,
        dealt,
        watch.samples,
        before,
        after,
        left_bytes,
        stats,
        sends.total(),
        len(sends),
        lost["images"],
        minutes,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--pace", type=float, default=500.0, help="images a second")
    parser.add_argument("--leak", type=float, default=0.0, help="MiB a minute to hold on purpose")
    given = parser.parse_args()
    print(f"seed {given.seed}: repeat with --seed {given.seed}", flush=True)
    run = asyncio.run(soak(given.minutes, given.seed, given.pace, given.leak))
    print(run.report())
    broken = run.broken()
    print("\n".join(f"BROKEN: {promise}" for promise in broken) or "all promises held")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
