"""Hash-only inputs through `classify_many`.

The official client cannot send hashes on a stream; it is given 50 bytes in place of an image.
"""

from __future__ import annotations

from athena_async import AthenaClient, wire
from athena_async.config import BatchingConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Report, Row, Scale, compare, rate, take_turns

OFFICIAL_BATCHES = (10, 50, 100, 200)
CONNECTIONS = 2
WITH_ITEMS = "hand-rolled, building requests from hashes and keeping answers by id"


async def run(scale: Scale) -> Report:
    report = Report()
    count = scale.pick(100_000, 6_000)
    async with children.start("benchmarks.server") as sink:
        best = await _best_batch(sink.endpoint, count // 4)
        for batch in scale.pick((None, 10, 50, 200), (None, 10, 200)):
            report.rows.append(await _against(sink.endpoint, batch, batch or best, count, scale))
    return report


async def _best_batch(endpoint: str, count: int) -> int:
    """The official client's best batch size, by trying some."""
    settings = [official.Settings(batch=batch, resize=False, compress=False) for batch in OFFICIAL_BATCHES]
    taken = {each.batch: await official.stream(endpoint, inputs.tiny(count), each) for each in settings}
    return min(taken, key=taken.__getitem__)


async def _against(endpoint: str, batch: int | None, official_batch: int, count: int, scale: Scale) -> Row:
    """All peers; ours adapts its batches where ``batch`` is None."""
    digests = inputs.digests(count)
    messages = hand_rolled.requests([wire.Payload(b"", md5=(digest,)) for digest in digests], batch or 200)
    few = scale.pick(count, count // 4)
    images, tiny = ours.hash_only(digests), inputs.tiny(few)
    settings = official.Settings(batch=official_batch, resize=False, compress=False)
    config = ours.config(endpoint, batching=BatchingConfig(fixed_size=batch))
    async with AthenaClient(config) as client, hand_rolled.connections(endpoint, CONNECTIONS) as channels:
        peers = {
            OURS: lambda: rate(count, ours.classify_many(client, images)),
            OFFICIAL: lambda: rate(few, official.stream(endpoint, tiny, settings)),
            HAND_ROLLED: lambda: rate(count, hand_rolled.stream(channels, messages)),
            WITH_ITEMS: lambda: rate(count, hand_rolled.hashes(channels, digests, batch or 200)),
        }
        if scale.quick and batch is not None:
            del peers[OFFICIAL], peers[WITH_ITEMS]  # they stand in the adaptive row; this one's target is the other
        figures = await take_turns(peers, scale.rounds)
    if batch is None:
        note = f"official at its best batch, {official_batch}; hand-rolled at 200, our largest"
        return Row("S1", "hash-only, adaptive", "images/s", figures, compare(figures, OFFICIAL, 2), note)
    return Row("S1", f"hash-only, batch {batch}", "images/s", figures, compare(figures, HAND_ROLLED, 0.7))
