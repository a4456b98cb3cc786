"""Chunks are taken in their order, whatever happens to them on the way to an agent."""

from __future__ import annotations

from faust.types import TP

from streams.progress import Progress
from streams.transport import Chunk
from tests.unit.streams.fakes import KafkaRecord

SOURCE = TP("behaviours", 0)


def records(
    first: int, last: int, *, generation: int = 1, lap: int = 1, follows: int | None = None
) -> Chunk:
    fetched = [KafkaRecord("behaviours", 0, i, None, None) for i in range(first, last + 1)]
    return Chunk(SOURCE, fetched, generation, lap, first if follows is None else follows)


def reading_from(offset: int) -> tuple[Progress, list[str]]:
    progress, gaps = Progress(), list[str]()
    progress.on_gap = lambda: gaps.append("gap")
    progress.start(1)
    progress.seek(1, {SOURCE: offset})
    return progress, gaps


def test_chunks_that_go_on_where_the_last_one_ended_are_taken() -> None:
    progress, gaps = reading_from(5)
    assert progress.take(records(5, 9))
    assert progress.take(records(10, 12))
    assert progress.advanced(SOURCE, 10, 1)
    assert (progress.positions, progress.committed) == ({SOURCE: 10}, {SOURCE: 5})
    assert gaps == []


def test_offsets_that_no_record_has_are_no_gap() -> None:
    progress, gaps = reading_from(5)
    assert progress.take(records(5, 9))
    assert progress.take(records(12, 13, follows=10))  # a transaction's marker between
    assert gaps == []


def test_behind_a_chunk_that_was_lost_nothing_is_taken_until_reading_begins_anew() -> None:
    progress, gaps = reading_from(5)
    assert progress.take(records(5, 9))
    assert not progress.take(records(13, 15))  # 10 to 12 were in a queue that was cleared
    assert not progress.take(records(16, 17))
    assert gaps == ["gap"]
    progress.seek(2, {SOURCE: 5})
    assert not progress.take(records(18, 18))  # it was in the queue
    assert progress.take(records(5, 17, lap=2))
    assert gaps == ["gap"]


def test_the_first_chunk_may_be_lost_too() -> None:
    progress, gaps = reading_from(5)
    assert not progress.take(records(10, 12))
    assert gaps == ["gap"]


def test_a_chunk_of_before_is_not_taken_though_the_generation_has_the_same_number() -> None:
    progress, gaps = reading_from(5)
    assert progress.take(records(5, 9))
    progress.start(1)
    assert not progress.advanced(SOURCE, 10, 1)  # it went into windows that were dropped
    assert not progress.take(records(10, 12))  # fetched before
    assert progress.positions == {}
    progress.seek(2, {SOURCE: 5})
    assert progress.take(records(5, 12, lap=2))
    assert gaps == []


def test_a_chunk_of_another_generation_is_not_taken() -> None:
    progress, gaps = reading_from(5)
    assert not progress.take(records(5, 9, generation=2))
    assert gaps == []
