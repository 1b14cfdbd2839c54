"""The fleet with real sessions over transports in memory, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import anyio

from athena_async import events, wire
from athena_async.channels.channel import Access, CallFailed, Metadata
from athena_async.channels.health import EndpointState, HealthBoard
from athena_async.channels.pool import Pool
from athena_async.config import BreakerConfig, PoolConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.backoff import Backoff
from athena_async.streams.fleet import Fleet, FleetHooks
from athena_async.streams.loss import Loss
from athena_async.streams.session import Session, SessionSettings
from athena_async.streams.state import State
from athena_async.streams.ticket import Batch
from tests.unit.streams.fakes import HEAD, FakeTransport, batch_of, settle, tickets
from tests.virtual_time import run_virtual

DOWN = CallFailed(ErrorCode.UNAVAILABLE, "connection refused")
REFUSED = CallFailed(ErrorCode.PERMISSION_DENIED, "not permitted")


class Bench:
    """A fleet, its transports by endpoint, and everything it tells."""

    def __init__(self, *endpoints: str, connects: dict[str, list[CallFailed | str | None]] | None = None) -> None:
        self.endpoints = endpoints or ("a:1",)
        self.connects = connects or {}
        self.transports: dict[str, list[FakeTransport]] = {endpoint: [] for endpoint in self.endpoints}
        self.events: list[events.Event] = []
        self.losses: list[Loss] = []
        self.writing: list[Batch] = []
        self.overdue: list[Batch] = []
        self.answered: list[tuple[Batch, float]] = []
        self.over: list[str] = []
        self.congested: list[str] = []
        self.reading: list[bool] = []
        self.turned_away: list[CallFailed] = []
        self.responses: list[wire.Response] = []
        self.changed_count = 0
        config = PoolConfig(channels=1, max_age_s=0.0, silence_timeout_s=30.0)
        rng = random.Random(1)
        self.health = HealthBoard(self.endpoints, BreakerConfig(failures=3), rng)
        self.pool: Pool[Session] = Pool(self.endpoints, config, self.health, rng)
        self.fleet = Fleet(
            self.pool,
            self.health,
            config,
            SessionSettings(HEAD, 10.0, 5.0, 300.0, Backoff(0.1, 0.1)),
            Access(self._connect, self._authorize, lambda _metadata: None),
            FleetHooks(
                received=lambda _session, response: self.responses.append(response),
                lost=lambda _session, loss: self.losses.append(loss),
                writing=self.writing.append,
                wrote=lambda _size, _waited: None,
                answered=lambda _session, batch, latency_s: self.answered.append((batch, latency_s)),
                batch_over=self.over.append,
                congested=self.congested.append,
                overdue=self.overdue.extend,
                reading=self.reading.append,
                turned_away=self.turned_away.append,
                changed=self._changed,
                may_rest=lambda: True,
                emit=self.events.append,
            ),
            rng,
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def session(self, endpoint: str = "a:1") -> Session:
        return next(s for s in reversed(self.pool.lanes()) if s.endpoint == endpoint)

    def send(self, *names: str, endpoint: str = "a:1") -> Batch:
        session = self.session(endpoint)
        batch = batch_of(tickets(*names), session, self.now)
        session.send(batch)
        self.fleet.sent(session, batch)
        return batch

    def answer(self, batch: Batch, count: int | None = None) -> None:
        for image in batch.open_tickets()[:count]:
            batch.answered(image, self.now)

    def named(self, kind: type[events.Event]) -> list[events.Event]:
        return [event for event in self.events if type(event) is kind]

    async def _connect(self, endpoint: str) -> FakeTransport:
        made = FakeTransport(*self.connects.get(endpoint, []))
        self.transports[endpoint].append(made)
        return made

    async def _authorize(self) -> Metadata:
        return ()

    def _changed(self) -> None:
        self.changed_count += 1


def play(bench_of: Callable[[], Bench], scene: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = bench_of()
        async with anyio.create_task_group() as tasks:
            bench.fleet.start(tasks.start_soon)
            await scene(bench)
            bench.fleet.close()
            tasks.cancel_scope.cancel()
        assert bench.pool.lanes() == []
        assert all(transport.closed == 1 for made in bench.transports.values() for transport in made)

    run_virtual(main())


def test_opens_a_stream_on_every_endpoint_when_images_wait() -> None:
    async def scene(bench: Bench) -> None:
        assert bench.pool.lanes() == []
        bench.fleet.demand()
        await settle()
        assert [session.state for session in bench.pool.lanes()] == [State.OPEN, State.OPEN]
        assert bench.reading[-1] is True
        assert len(bench.named(events.StreamOpened)) == 2
        bench.fleet.demand()
        await settle()
        assert len(bench.pool) == 2

    play(lambda: Bench("a:1", "b:1"), scene)


def test_before_it_is_started_and_after_it_is_closed_nothing_is_opened() -> None:
    async def main() -> None:
        bench = Bench()
        bench.fleet.demand()
        assert bench.pool.lanes() == []

    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        bench.fleet.close()
        await bench.fleet.wait_empty()
        bench.fleet.demand()
        assert bench.pool.lanes() == []

    run_virtual(main())
    play(Bench, scene)


def test_a_batch_is_told_as_sent_when_it_is_written() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        call = bench.transports["a:1"][0].call
        call.gate.clear()
        first, second = bench.send("a", "b"), bench.send("c")
        await settle()
        assert bench.writing == [first]
        assert [event.images for event in bench.named(events.BatchSent)] == [2]  # type: ignore[attr-defined]
        call.gate.set()
        await settle()
        assert bench.writing == [first, second]

    play(Bench, scene)


def test_an_answered_batch_is_told_with_its_latency() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        batch = bench.send("first", "second")
        await asyncio.sleep(2.0)
        bench.answer(batch)
        assert bench.answered == [(batch, 2.0)]
        assert bench.over == ["a:1"]
        (event,) = bench.named(events.BatchAnswered)
        assert isinstance(event, events.BatchAnswered)
        assert (event.images, event.latency_s, event.correlation_id) == (2, 2.0, "first")

    play(Bench, scene)


def test_a_loss_is_told_once_and_reading_stops_before_it() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        bench.send("a", "b")
        await settle()
        bench.transports["a:1"][0].call.fail(ErrorCode.UNAVAILABLE, "reset")
        await settle()
        assert len(bench.losses) == 1
        assert bench.reading[-1] is False
        (event,) = bench.named(events.StreamClosed)
        assert isinstance(event, events.StreamClosed)
        assert (event.code, event.message, event.possibly_sent) == ("UNAVAILABLE", "reset", 2)

    play(Bench, scene)


def test_a_stream_that_rests_is_not_read_any_more() -> None:
    """Otherwise recovery would count quiet while nobody listens, and send again what the deployment holds."""

    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await asyncio.sleep(5.0)
        changed_before = bench.changed_count
        bench.transports["a:1"][0].call.end()
        await settle()
        assert bench.session().state is State.IDLE
        assert bench.reading[-1] is False
        assert bench.losses == []
        assert bench.changed_count > changed_before, "images may wait for another stream"
        assert bench.health.state("a:1", bench.now) is EndpointState.CLOSED

    play(Bench, scene)


def test_failures_eject_an_endpoint_and_an_answer_brings_it_back() -> None:
    async def scene(bench: Bench) -> None:
        for _ in range(40):
            bench.fleet.demand()
            await asyncio.sleep(0.05)
        (ejected,) = bench.named(events.EndpointEjected)
        assert isinstance(ejected, events.EndpointEjected)
        assert ejected.endpoint == "b:1"
        await asyncio.sleep(30.0)
        bench.fleet.demand()
        await asyncio.sleep(1.0)
        bench.answer(bench.send("probe", endpoint="b:1"))
        assert len(bench.named(events.EndpointReturned)) == 1

    play(lambda: Bench("a:1", "b:1", "c:1", connects={"b:1": [DOWN] * 3}), scene)


def test_refusals_are_not_the_endpoints_fault_and_are_told_when_all_refuse() -> None:
    async def scene(bench: Bench) -> None:
        for _ in range(10):
            bench.fleet.demand()
            await asyncio.sleep(0.2)
        assert bench.turned_away == [], "the other endpoint takes us"
        bench.transports["b:1"][0].call.fail(ErrorCode.PERMISSION_DENIED)
        await settle()
        assert [failure.code for failure in bench.turned_away] == [ErrorCode.PERMISSION_DENIED]
        assert bench.named(events.EndpointEjected) == []

    play(lambda: Bench("a:1", "b:1", connects={"a:1": [REFUSED] * 99}), scene)


def test_exhaustion_slows_down_and_a_refused_size_does_not() -> None:
    async def scene(bench: Bench) -> None:
        for message, count in (("quota", 1), ("message larger than max (9 vs. 5)", 1)):
            bench.fleet.demand()
            await asyncio.sleep(1.0)
            bench.fleet.demand()
            await settle()
            bench.transports["a:1"][0].call.fail(ErrorCode.RESOURCE_EXHAUSTED, message)
            await settle()
            assert len(bench.congested) == count

    play(Bench, scene)


def test_what_is_heard_on_a_stream_shows_that_it_lives_though_its_own_batch_is_left_out() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        left_out = bench.send("a")
        await asyncio.sleep(0.9)
        bench.transports["a:1"][0].call.answer("elsewhere")
        await settle()
        await asyncio.sleep(0.9)
        bench.fleet.watch(0.05, 1.0, shared=False)
        assert bench.session().ready
        bench.answer(left_out)

    play(Bench, scene)


def test_a_stuck_stream_is_no_news_of_an_endpoint_that_answers_on_another() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        bench.send("a", endpoint="b:1")
        old = bench.session("b:1")
        bench.fleet.renew("test")
        await settle()
        for _ in range(4):
            await asyncio.sleep(10.0)
            bench.answer(bench.send("b", endpoint="b:1"))
            bench.fleet.watch(0.1, 1.0, shared=False)
        await settle()
        assert [loss.failure.message for loss in bench.losses] == ["no answer for 30.0 s"]
        assert old.state is State.CLOSED
        assert bench.health.state("b:1", bench.now) is EndpointState.CLOSED

    play(lambda: Bench("a:1", "b:1"), scene)


def test_streams_that_fall_silent_one_after_the_other_are_one_silent_endpoint() -> None:
    """The last answers before a hang come a little apart: the first stream to be given up must tell of them all."""

    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        first = bench.send("a", "b", endpoint="b:1")
        bench.answer(first, 1)
        old = bench.session("b:1")
        bench.fleet.renew("test")
        await settle()
        assert bench.session("b:1") is not old
        second = bench.send("c", "d", endpoint="b:1")
        await asyncio.sleep(0.5)
        bench.answer(bench.send("e", endpoint="b:1"))  # the last that is heard, on the second
        await asyncio.sleep(29.7)
        bench.fleet.watch(0.01, 1.0, shared=False)
        assert first.open_count
        assert second.open_count
        assert bench.health.state("b:1", bench.now) is EndpointState.OPEN

    play(lambda: Bench("a:1", "b:1"), scene)


def test_a_stream_that_dies_silent_may_have_had_too_much_on_it() -> None:
    async def scene(bench: Bench) -> None:
        for silent_s, count in ((4.9, 0), (5.1, 1)):
            bench.fleet.demand()
            await asyncio.sleep(1.0)
            bench.fleet.demand()
            await settle()
            bench.send("a")
            await asyncio.sleep(silent_s)
            bench.transports["a:1"][0].call.fail(ErrorCode.UNAVAILABLE, "ping timeout")
            await settle()
            assert len(bench.congested) == count

    play(Bench, scene)


def test_a_silent_stream_is_given_up_and_counts_once_against_its_endpoint() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        bench.send("a")
        await asyncio.sleep(29.9)
        bench.fleet.watch(0.1, 1.0, shared=False)
        await settle()
        assert bench.losses == []
        await asyncio.sleep(0.2)
        bench.fleet.watch(0.1, 1.0, shared=False)
        await settle()
        (loss,) = bench.losses
        assert loss.failure.message == "no answer for 30.0 s"
        assert bench.health._breakers["a:1"].failures == 1

    play(Bench, scene)


def test_a_stream_that_hangs_gives_its_room_to_others_until_it_answers() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        hanging = bench.session()
        first, second = bench.send("a"), bench.send("b")
        await asyncio.sleep(0.9)
        bench.fleet.watch(0.05, 1.0, shared=False)
        assert (hanging.ready, bench.fleet.in_flight_limit("a:1", 4)) == (True, 4)
        await asyncio.sleep(0.2)
        bench.fleet.watch(0.05, 1.0, shared=False)
        assert (hanging.ready, bench.fleet.in_flight_limit("a:1", 4)) == (False, 4)
        assert bench.fleet.in_flight_limit("a:1", 1) == 3, "nothing is heard elsewhere: one batch may try"
        bench.fleet.renew("test")
        await settle()
        other = bench.send("c")
        assert bench.session() is not hanging
        bench.answer(other)
        bench.fleet.watch(0.05, 1.0, shared=False)
        assert bench.fleet.in_flight_limit("a:1", 4) == 6, "the others answer: they may use all of it"
        bench.answer(first)
        assert bench.fleet.in_flight_limit("a:1", 4) == 4, "it counts again at once"
        bench.answer(second)

    play(Bench, scene)


def test_a_service_that_is_silent_on_every_stream_gets_no_more_than_one_batch_more() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        batches = [bench.send("a"), bench.send("b")]
        for _ in range(5):
            await asyncio.sleep(1.1)
            bench.fleet.watch(0.05, 1.0, shared=False)
            assert bench.fleet.in_flight_limit("a:1", 2) == 3
        for batch in batches:
            bench.answer(batch)

    play(Bench, scene)


def test_a_batch_sent_to_a_stream_is_no_sign_of_life() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        batches = [bench.send("a")]
        await asyncio.sleep(0.8)
        batches.append(bench.send("b"))
        await asyncio.sleep(0.3)
        bench.fleet.watch(0.05, 1.0, shared=False)
        assert not bench.session().ready
        for batch in batches:
            bench.answer(batch)

    play(Bench, scene)


def test_a_slow_service_is_given_ten_of_its_usual_latencies() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        batch = bench.send("a", "b")
        await asyncio.sleep(60.0)
        bench.fleet.watch(8.0, 100.0, shared=False)
        await settle()
        assert bench.losses == []
        bench.answer(batch)

    play(Bench, scene)


def test_images_left_out_of_an_answer_are_told_after_two_graces() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        left_out, silent = bench.send("a", "b"), bench.send("c")
        bench.answer(left_out, 1)
        await asyncio.sleep(1.9)
        bench.fleet.watch(0.1, 1.0, shared=False)
        assert bench.overdue == []
        await asyncio.sleep(0.2)
        bench.fleet.watch(0.1, 1.0, shared=False)
        assert bench.overdue == [left_out]
        bench.session().release(left_out)
        bench.session().release(silent)

    play(Bench, scene)


def test_an_answer_may_have_gone_with_another_stream_that_was_lost() -> None:
    """It is missed after ten latencies that are usual for its endpoint, and not after so many of another."""

    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        for endpoint, latency_s in (("a:1", 0.5), ("c:1", 5.0)):
            usual = bench.send("usual", endpoint=endpoint)
            await asyncio.sleep(latency_s)
            bench.answer(usual)
        quick, slow = bench.send("quick", endpoint="a:1"), bench.send("slow", endpoint="c:1")
        bench.send("lost", endpoint="b:1")
        await asyncio.sleep(0.1)
        bench.transports["b:1"][0].call.fail(ErrorCode.UNAVAILABLE, "reset")
        await asyncio.sleep(9.9)  # a first latency is taken to deviate by its half
        bench.fleet.watch(0.1, 1.0, shared=False)
        assert bench.overdue == []
        await asyncio.sleep(0.2)
        bench.fleet.watch(0.1, 1.0, shared=False)
        assert bench.overdue == [quick]
        bench.answer(quick)
        bench.answer(slow)

    play(lambda: Bench("a:1", "b:1", "c:1"), scene)


def test_a_stream_that_was_never_open_took_no_answer_with_it() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        usual = bench.send("usual", endpoint="a:1")
        await asyncio.sleep(0.2)
        bench.answer(usual)
        before = bench.send("before", endpoint="a:1")
        bench.fleet.demand()
        await settle()
        assert [loss.was_open for loss in bench.losses] == [False, False]
        await asyncio.sleep(20.0)
        bench.fleet.watch(0.1, 1.0, shared=False)
        assert bench.overdue == []
        bench.answer(before)

    play(lambda: Bench("a:1", "b:1", connects={"b:1": [DOWN, DOWN]}), scene)


def test_on_a_shared_deployment_old_batches_make_room_but_never_unwritten_ones() -> None:
    """A batch that waits for the writer would not be sent at all."""

    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        call = bench.transports["a:1"][0].call
        call.gate.clear()
        first, waiting = bench.send("first"), bench.send("waiting")
        await settle()
        bench.fleet.foreign_answers(5)
        assert list(bench.session().batches) == [waiting]
        await asyncio.sleep(5.0)
        bench.fleet.watch(0.1, 1.0, shared=True)
        assert list(bench.session().batches) == [waiting]
        call.gate.set()
        await settle()
        assert call.requests == [["first"], ["waiting"]]
        bench.fleet.watch(0.1, 1.0, shared=True)
        assert list(bench.session().batches) == []
        assert (bench.overdue, first.open_count) == ([], 0)

    play(Bench, scene)


def test_renewal_opens_the_new_stream_before_the_old_one_is_drained() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        old = bench.session()
        batch = bench.send("a")
        await settle()
        bench.fleet.renew("token renewed")
        assert [session.state for session in bench.pool.lanes()] == [State.OPEN, State.CONNECTING]
        await settle()
        assert (old.state, bench.session().state) == (State.DRAINING, State.OPEN)
        assert bench.reading[-1] is True
        bench.answer(batch)
        await settle()
        bench.transports["a:1"][0].call.end()
        await settle()
        assert bench.pool.lanes() == [bench.session()]
        assert bench.losses == []

    play(Bench, scene)


def test_a_server_that_goes_away_is_left_for_a_new_channel() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        old = bench.session()
        bench.transports["a:1"][0].going_away = True
        bench.fleet.watch(0.1, 1.0, shared=False)
        bench.fleet.adjust(waiting=False)
        await settle()
        bench.fleet.adjust(waiting=False)
        await settle()
        assert (old.state, bench.session().state) == (State.DRAINING, State.OPEN)
        assert [e.reason for e in bench.named(events.PoolResized) if isinstance(e, events.PoolResized)] == [
            "opened",
            "opened",
            "server going away",
        ]

    play(Bench, scene)


def test_draining_waits_for_every_session() -> None:
    async def scene(bench: Bench) -> None:
        bench.fleet.demand()
        await settle()
        batch = bench.send("a", endpoint="b:1")
        bench.fleet.drain()
        waiting = asyncio.create_task(bench.fleet.wait_empty())
        await settle()
        bench.transports["a:1"][0].call.end()
        await settle()
        assert not waiting.done()
        bench.answer(batch)
        await settle()
        bench.transports["b:1"][0].call.end()
        await asyncio.wait_for(waiting, 1.0)
        assert bench.losses == []
        bench.fleet.demand()
        assert bench.pool.lanes() == [], "whatever waits, nothing is opened in place of what was drained"

    play(lambda: Bench("a:1", "b:1"), scene)
