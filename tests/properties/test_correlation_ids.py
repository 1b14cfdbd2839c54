from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena_async.config import MAX_ID_LENGTH
from athena_async.streams.demultiplexer import CorrelationIds


@pytest.mark.timeout(60)
def test_a_million_ids_of_several_clients_are_unique_and_short() -> None:
    clients = [CorrelationIds() for _ in range(10)]
    ids = {client.next() for client in clients for _ in range(100_000)}
    assert len(ids) == 1_000_000
    assert all(1 <= len(one) <= MAX_ID_LENGTH for one in ids)
    assert all(one.isascii() and one.isprintable() and " " not in one for one in ids)


def test_the_last_of_many_more_ids_would_be_short_enough_too() -> None:
    ids = CorrelationIds()
    assert len(ids.prefix) + len(f"{2**64:x}") <= MAX_ID_LENGTH


def test_no_two_clients_share_a_prefix() -> None:
    prefixes = [CorrelationIds().prefix for _ in range(10_000)]
    assert len(set(prefixes)) == len(prefixes)
    assert not any(one != other and other.startswith(one) for one in prefixes[:100] for other in prefixes[:100])


@given(st.integers(1, 2000))
def test_identical_images_get_different_ids(count: int) -> None:
    ids = CorrelationIds("same")
    assert len({ids.next() for _ in range(count)}) == count
