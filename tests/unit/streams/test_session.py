"""A session over a transport in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import anyio
import pytest

from athena_async.channels.channel import CallFailed
from athena_async.errors import CredentialsError, ErrorCode
from athena_async.resilience.backoff import Backoff
from athena_async.streams.state import State
from tests.unit.streams.fakes import HEAD, FakeAccess, FakeTransport, SessionBench, settle, tickets
from tests.virtual_time import run_virtual

DOWN = CallFailed(ErrorCode.UNAVAILABLE, "connection refused")


class OneSecond(Backoff):
    """Without jitter."""

    def delay_s(self, attempt: int, rng: object, at_least_s: float = 0.0) -> float:
        return 1.0


Scene = Callable[[SessionBench], Awaitable[None]]


def play(scene: Scene, *connects: CallFailed | str | None, token: bool = True, **settings: object) -> SessionBench:
    """Runs the session's task beside the scene, and closes it at the end."""

    async def main() -> SessionBench:
        transport = FakeTransport(*connects)
        bench = SessionBench(transport, access=FakeAccess(transport, token=token), **settings)  # type: ignore[arg-type]
        running = asyncio.create_task(bench.session.run())
        await settle()
        await scene(bench)
        bench.session.close()
        await asyncio.wait_for(running, 30.0)
        assert bench.session.state is State.CLOSED
        assert not bench.session.batches
        return bench

    return run_virtual(main())


def unsent(bench: SessionBench, loss: int = -1) -> list[bool]:
    return [lost.unsent for lost in bench.losses[loss].batches]


# --- opening ---


def test_opens_on_demand_and_joins_the_deployment_first() -> None:
    async def scene(bench: SessionBench) -> None:
        assert (bench.session.state, bench.transport.calls) == (State.IDLE, [])
        call = await bench.open()
        assert bench.session.state is State.OPEN
        assert bench.session.ready
        assert call.written == [HEAD]
        assert call.metadata == (("authorization", "Bearer 1"),)

    play(scene)


def test_a_refused_connection_waits_its_whole_backoff_each_time() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        bench.session.demand()
        await asyncio.sleep(30.0)
        assert len(bench.transport.calls) == 7
        assert bench.session.state is State.OPEN

    opened_s: list[float] = []

    class Even(Backoff):
        def delay_s(self, attempt: int, rng: object, at_least_s: float = 0.0) -> float:
            opened_s.append(asyncio.get_running_loop().time())
            return at_least_s + self.ceiling_s(attempt)

    play(scene, *[DOWN] * 6, backoff=Even(0.1, 1.0))
    waits = [later - earlier for earlier, later in pairwise(opened_s)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])


def test_a_demand_during_backoff_does_not_shorten_it() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.session.demand()
        await settle()
        assert bench.session.state is State.BACKOFF
        for _ in range(9):
            await asyncio.sleep(0.1)
            bench.session.demand()
        assert bench.session.state is State.BACKOFF
        assert len(bench.transport.calls) == 1

    play(scene, DOWN, backoff=OneSecond(0.1, 1.0))


def test_the_servers_pushback_is_the_least_that_is_waited() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.session.demand()
        await asyncio.sleep(6.9)
        assert bench.session.state is State.BACKOFF
        await asyncio.sleep(0.3)
        assert bench.session.state is State.IDLE

    play(scene, CallFailed(ErrorCode.UNAVAILABLE, "busy", 7.0), backoff=Backoff(0.1, 0.1))


def test_a_connection_that_hangs_is_given_up_in_time() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.session.demand()
        await asyncio.sleep(4.9)
        assert bench.session.state is State.CONNECTING
        await asyncio.sleep(0.11)
        assert bench.losses[0].failure.code is ErrorCode.UNAVAILABLE
        assert "no connection within 5 s" in bench.losses[0].failure.message
        assert bench.call.cancelled
        assert not bench.losses[0].refused

    play(scene, "hang", connect_timeout_s=5.0)


def test_one_channel_serves_all_calls_and_is_closed_once() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        bench.session.demand()
        await asyncio.sleep(5.0)
        assert len(bench.transport.calls) == 3

    bench = play(scene, DOWN, DOWN)
    assert bench.access.connected == ["there:1"]
    assert bench.transport.closed == 1


# --- authentication ---


def test_a_refused_token_is_renewed_and_tried_once_before_anybody_is_told() -> None:
    refused = CallFailed(ErrorCode.UNAUTHENTICATED, "token expired")

    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        call = await bench.open()
        assert bench.now == 0.0, "the second try needs no backoff"
        assert bench.access.refused_tokens == [(("authorization", "Bearer 1"),)]
        assert call.metadata == (("authorization", "Bearer 2"),)
        assert [loss.refused for loss in bench.losses] == [False]

    play(scene, refused)


def test_a_second_refusal_in_a_row_is_told_as_final_and_backs_off() -> None:
    refused = CallFailed(ErrorCode.UNAUTHENTICATED, "no such client")

    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        await bench.open()
        assert [loss.refused for loss in bench.losses] == [False, True]
        assert bench.session.state is State.BACKOFF

    play(scene, refused, refused, backoff=OneSecond(1.0, 1.0))


def test_an_answer_in_between_makes_the_next_refusal_a_first_one_again() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        for _ in range(3):
            call = await bench.open()
            call.answer("x")
            await settle()
            call.fail(ErrorCode.UNAUTHENTICATED)
            await settle()
        assert [loss.refused for loss in bench.losses] == [False] * 3
        assert len(bench.access.refused_tokens) == 3

    play(scene)


def test_images_on_a_refused_call_were_not_sent() -> None:
    async def scene(bench: SessionBench) -> None:
        await bench.open()
        batch = bench.send("a", "b")
        await settle()
        assert batch.tickets[0].attempts == 1
        bench.call.fail(ErrorCode.PERMISSION_DENIED)
        await settle()
        assert unsent(bench) == [True]
        assert bench.losses[0].refused
        assert [image.attempts for image in batch.tickets] == [0, 0]

    play(scene)


def test_missing_credentials_are_final_and_unreachable_ones_are_not() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.access.failure = CredentialsError("the client secret is wrong")
        bench.on_room = bench.session.demand
        bench.session.demand()
        await settle()
        assert [loss.failure.code for loss in bench.losses[:2]] == [ErrorCode.UNAUTHENTICATED] * 2
        assert [loss.refused for loss in bench.losses[:2]] == [False, True]
        assert bench.access.refused_tokens == [], "there was no token to refuse"
        bench.losses.clear()
        bench.access.failure = CredentialsError("the token endpoint is away", retryable=True)
        await asyncio.sleep(20.0)
        assert {loss.failure.code for loss in bench.losses} == {ErrorCode.UNAVAILABLE}
        assert not any(loss.refused for loss in bench.losses)

    play(scene, backoff=OneSecond(1.0, 1.0))


# --- the life of a call ---


def test_writes_batches_in_order_and_tells_when_there_is_room() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("a", "b")
        await settle()
        bench.send("c")
        bench.send("d")
        assert not bench.session.ready, "one is being written and two wait"
        assert [len(batch.tickets) for batch in bench.writing] == [2]
        call.gate.set()
        await settle()
        assert call.requests == [["a", "b"], ["c"], ["d"]]
        assert [len(batch.tickets) for batch in bench.writing] == [2, 1, 1]
        assert bench.session.ready
        assert bench.room_count == 3
        assert [size_bytes for size_bytes, _ in bench.wrote] == [len(request) for request in call.written[1:]]

    play(scene)


def test_hands_responses_on_and_forgets_answered_batches() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        batch = bench.send("a", "b")
        call.answer("a", "b")
        await settle()
        assert [answer.correlation_id for answer in bench.responses[0].answers] == ["a", "b"]
        bench.answer(batch)
        assert bench.finished == bench.over == [batch]
        assert (bench.session.outstanding_bytes, bench.session.outstanding_images) == (0, 0)
        assert not bench.session.batches

    play(scene)


def test_keeps_alive_only_when_silent() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(25.0)
        assert call.keepalives == 2
        batch = bench.send("a")
        await asyncio.sleep(9.0)
        assert call.keepalives == 2, "the batch at 25 s counts as a sign of life"
        await asyncio.sleep(1.1)
        assert call.keepalives == 3
        bench.answer(batch)

    play(scene, keepalive_interval_s=10.0)


def test_a_server_that_half_closes_with_images_open_is_a_loss() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(5.0)
        first, second = bench.send("a", "b"), bench.send("c")
        await settle()
        first.answered(first.tickets[0], bench.now)
        call.end()
        await settle()
        (loss,) = bench.losses
        assert loss.failure.code is ErrorCode.UNAVAILABLE
        assert [[t.correlation_id for t in lost.tickets] for lost in loss.batches] == [["b"], ["c"]]
        assert unsent(bench) == [False, False]
        assert [lost.was_read for lost in loss.batches] == [True, False]
        assert bench.over == [first, second]
        assert bench.session.state is State.BACKOFF

    play(scene)


def test_a_half_close_in_peace_is_none_and_is_told() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(5.0)
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.IDLE, [])
        assert bench.rested_s == [5.0]
        await bench.open()
        assert bench.session.state is State.OPEN

    play(scene)


def test_a_server_that_ends_every_stream_at_once_is_backed_off_from() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        bench.on_opened = lambda _session: bench.call.end()
        bench.session.demand()
        await asyncio.sleep(60.0)
        assert 5 < len(bench.transport.calls) < 60
        assert {loss.failure.code for loss in bench.losses} == {ErrorCode.UNAVAILABLE}

    play(scene, backoff=Backoff(0.5, 10.0))


def test_an_idle_stream_rests_and_wakes() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(295.0)
        assert not call.half_closed
        await asyncio.sleep(10.0)
        assert call.half_closed
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.IDLE, [])
        assert bench.transport.closed == 0, "the channel is kept"
        await bench.open()
        assert bench.session.state is State.OPEN

    play(scene)


def test_a_stream_that_opens_long_after_the_last_image_is_not_idle_at_once() -> None:
    """Two sessions are opened for one batch: the one that gets none must not rest, and then count as broken."""

    async def scene(bench: SessionBench) -> None:
        await asyncio.sleep(1000.0)
        call = await bench.open()
        await asyncio.sleep(60.0)
        assert not call.half_closed
        assert bench.session.state is State.OPEN

    play(scene, idle_timeout_s=300.0)


def test_an_idle_stream_stays_while_it_must_not_rest_or_never_should() -> None:
    async def kept(bench: SessionBench) -> None:
        bench.may_rest = False
        call = await bench.open()
        await asyncio.sleep(1000.0)
        assert not call.half_closed

    async def never(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(100_000.0)
        assert not call.half_closed

    play(kept)
    play(never, idle_timeout_s=0.0, keepalive_interval_s=1000.0)


def test_a_resting_stream_takes_no_batch_and_does_not_wait_for_ever_for_its_server() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(302.0)
        assert call.half_closed
        assert not bench.session.ready, "nobody would write it"
        await asyncio.sleep(6.0)
        assert call.cancelled
        assert (bench.session.state, bench.losses) == (State.IDLE, [])
        assert bench.rested_s

    play(scene, idle_timeout_s=301.0, keepalive_interval_s=1.0)


def test_a_short_idle_timeout_is_no_failure() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(0.6)
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.IDLE, [])

    play(scene, idle_timeout_s=0.5, keepalive_interval_s=0.1)


def test_after_a_failed_write_the_read_side_tells_why() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.write_failure = CallFailed(ErrorCode.INTERNAL, "Internal error from Core")
        bench.send("a")
        bench.send("b")
        await settle()
        assert bench.losses == [], "a failed write alone says nothing"
        call.fail(ErrorCode.RESOURCE_EXHAUSTED, "the real status")
        await settle()
        (loss,) = bench.losses
        assert (loss.failure.code, loss.failure.message) == (ErrorCode.RESOURCE_EXHAUSTED, "the real status")
        assert unsent(bench) == [False, True], "the one being written may have gone; the one behind it has not"
        assert [lost.tickets[0].attempts for lost in loss.batches] == [1, 0]

    play(scene)


def test_bytes_that_are_no_response_end_the_call_and_are_not_quoted() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        bench.send("a")
        await settle()
        call.feed(b"\xff\xff\xffsecret")
        await settle()
        (loss,) = bench.losses
        assert loss.failure.code is ErrorCode.INTERNAL
        assert "secret" not in loss.failure.message
        assert call.cancelled
        assert bench.session.state is State.BACKOFF

    play(scene)


def test_an_answer_ends_a_row_of_failures_for_the_backoff() -> None:
    attempts: list[int] = []

    class Noting(Backoff):
        def delay_s(self, attempt: int, rng: object, at_least_s: float = 0.0) -> float:
            attempts.append(attempt)
            return 0.1

    async def scene(bench: SessionBench) -> None:
        bench.on_room = bench.session.demand
        bench.session.demand()
        await asyncio.sleep(1.0)
        bench.call.answer("a")
        await settle()
        bench.call.fail(ErrorCode.UNAVAILABLE)
        await settle()

    play(scene, DOWN, DOWN, DOWN, backoff=Noting(0.1, 1.0))
    assert attempts == [0, 1, 2, 0]


def test_a_stuck_call_is_given_up_with_its_reason() -> None:
    async def scene(bench: SessionBench) -> None:
        await bench.open()
        bench.send("a")
        await settle()
        bench.session.abandon_call("no answer for 30.0 s")
        await settle()
        (loss,) = bench.losses
        assert (loss.failure.code, loss.failure.message) == (ErrorCode.UNAVAILABLE, "no answer for 30.0 s")
        assert unsent(bench) == [False]

    play(scene)


def test_a_connection_that_goes_away_is_told_while_its_stream_is_open() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.transport.going_away = True
        assert not bench.session.is_going_away, "there is no stream yet"
        await bench.open()
        assert bench.session.is_going_away
        assert bench.session.state is State.OPEN, "the old stream is finished, not cut"

    play(scene)


# --- images that end while their batch waits ---


def test_what_was_settled_while_it_waited_is_not_written() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("first")
        await settle()
        partly, wholly = bench.send("a", "b"), bench.send("c")
        partly.tickets[0].settle()
        wholly.tickets[0].settle()
        assert wholly not in bench.session.batches
        call.gate.set()
        await settle()
        assert call.requests == [["first"], ["b"]]
        assert call.keepalives == 0, "nor is an empty request sent in its place"

    play(scene)


def test_a_batch_that_is_taken_back_is_not_written_any_more() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("first")
        await settle()
        batch = bench.send("a", "b")
        left = bench.session.release(batch)
        assert [image.correlation_id for image in left] == ["a", "b"]
        assert all(image.frame is not None and image.batch is None for image in left)
        call.gate.set()
        await settle()
        assert call.requests == [["first"]]
        assert bench.over == [batch]

    play(scene)


def test_releasing_twice_counts_once() -> None:
    async def scene(bench: SessionBench) -> None:
        await bench.open()
        batch = bench.send("a")
        bench.session.release(batch)
        assert bench.session.release(batch) == []
        assert bench.over == [batch]
        assert bench.session.outstanding_images == 0

    play(scene)


# --- draining, closing, cancelling ---


def test_draining_finishes_what_is_in_flight_and_half_closes() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        batch = bench.send("a")
        await settle()
        bench.session.drain()
        assert not bench.session.ready
        await asyncio.sleep(65.0)
        assert not call.half_closed
        assert call.keepalives == 6, "a draining stream is kept alive too"
        bench.answer(batch)
        await settle()
        assert call.half_closed
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.CLOSED, [])
        assert bench.transport.closed == 1

    play(scene)


def test_what_waits_in_the_outbox_is_still_written_when_drained() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("a")
        bench.send("b")
        await settle()
        bench.session.drain()
        call.gate.set()
        await settle()
        assert call.requests == [["a"], ["b"]]

    play(scene)


def test_a_drained_stream_that_is_lost_reports_its_images_and_ends() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        bench.send("a")
        await settle()
        bench.session.drain()
        call.fail(ErrorCode.UNAVAILABLE)
        await settle()
        assert bench.session.state is State.CLOSED
        assert [[t.correlation_id for t in lost.tickets] for loss in bench.losses for lost in loss.batches] == [["a"]]

    play(scene)


def test_a_session_that_ends_in_peace_reports_no_loss() -> None:
    async def idle(bench: SessionBench) -> None:
        bench.session.drain()
        await settle()
        assert (bench.session.state, bench.losses) == (State.CLOSED, [])

    async def drained(bench: SessionBench) -> None:
        call = await bench.open()
        await asyncio.sleep(5.0)
        bench.session.drain()
        await settle()
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.CLOSED, [])

    play(idle)
    play(drained)


def test_closing_reports_every_open_image_once() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("a")
        bench.send("b", "c")
        await settle()
        bench.session.close()
        await settle()
        (loss,) = bench.losses
        assert loss.failure.code is ErrorCode.CLOSED
        assert [[t.correlation_id for t in lost.tickets] for lost in loss.batches] == [["a"], ["b", "c"]]
        assert unsent(bench) == [False, True]
        assert call.cancelled

    bench = play(scene)
    assert len(bench.losses) == 1


@pytest.mark.parametrize("moment", ["idle", "connecting", "open", "writing", "resting", "backoff"])
def test_cancelling_run_closes_the_channel_and_reports_open_images(moment: str) -> None:
    async def main() -> None:
        transport = FakeTransport(*({"connecting": ["hang"], "backoff": [DOWN]}.get(moment, [])))
        bench = SessionBench(transport, keepalive_interval_s=1.0, idle_timeout_s=5.0)
        running = asyncio.create_task(bench.session.run())
        await settle()
        if moment != "idle":
            bench.session.demand()
            await settle()
        if moment == "writing":
            bench.call.gate.clear()
            bench.send("a")
        if moment == "open":
            bench.send("a")
        if moment == "resting":
            await asyncio.sleep(6.5)
            assert bench.call.half_closed
        await settle()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert bench.session.state is State.CLOSED
        lost = [t.correlation_id for loss in bench.losses for batch in loss.batches for t in batch.tickets]
        assert lost == (["a"] if moment in ("open", "writing") else [])
        assert transport.closed == (0 if moment == "idle" else 1)
        assert all(call.cancelled or moment == "backoff" for call in transport.calls)

    run_virtual(main())


def test_a_deadline_around_run_does_not_swallow_the_cancellation() -> None:
    async def main() -> None:
        bench = SessionBench(FakeTransport())
        with anyio.move_on_after(1.0) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bench.session.run)
                await bench.open()
                bench.send("a")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert bench.session.state is State.CLOSED
        assert len(bench.losses) == 1

    run_virtual(main())


def test_a_drain_while_connecting_ends_without_a_stream() -> None:
    async def scene(bench: SessionBench) -> None:
        bench.session.demand()
        await settle()
        bench.session.drain()
        await asyncio.sleep(6.0)
        assert bench.session.state is State.CLOSED
        assert bench.opened_s == []
        assert bench.transport.closed == 1

    play(scene, "hang")


def test_repr_shows_the_state() -> None:
    async def scene(bench: SessionBench) -> None:
        await bench.open()
        bench.send_tickets(tickets("a", "b"))
        assert repr(bench.session) == "Session(there:1 #1 OPEN, 1 batches, 2 images, 200 bytes)"

    play(scene)


def test_bytes_of_a_write_that_the_servers_half_close_cut_short_are_not_counted_for_ever() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        batch = bench.send("a")
        await asyncio.sleep(5.0)
        bench.session.release(batch)
        assert bench.session.unwritten_bytes == 100
        call.end()
        await settle()
        assert (bench.session.state, bench.losses) == (State.IDLE, [])
        assert bench.session.unwritten_bytes == 0

    play(scene)


def test_bytes_that_gRPC_has_not_taken_are_counted_until_it_has_or_never_will() -> None:
    async def scene(bench: SessionBench) -> None:
        call = await bench.open()
        call.gate.clear()
        bench.send("first")
        await settle()
        given_up = bench.send("a", "b")
        assert bench.session.unwritten_bytes == 300
        bench.session.release(given_up)
        assert bench.session.unwritten_bytes == 100
        bench.send("c")
        call.gate.set()
        await settle()
        assert bench.session.unwritten_bytes == 0
        call.gate.clear()
        bench.send("d")
        bench.send("e")
        await settle()
        call.fail(ErrorCode.UNAVAILABLE)
        await settle()
        assert (bench.session.unwritten_bytes, len(bench.losses)) == (0, 1)

    play(scene)
