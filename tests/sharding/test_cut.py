"""How spans of an input are put together to shards."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.sharding.cut import into, of_size
from clip_operator.tables import Span

SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=60)


def spans(sizes: list[int]) -> list[Span]:
    starts = accumulate(sizes, initial=0)
    return [Span(index, index + 1, row, rows) for index, (row, rows) in enumerate(zip(starts, sizes, strict=False))]


def weight(span: Span) -> float:
    assert span.rows is not None
    return span.rows


def assert_whole(shards: list[Span], sizes: list[int]) -> None:
    """Every span is in one shard, in order."""
    assert shards[0].start == shards[0].first_row == 0
    assert shards[-1].stop == len(sizes)
    for before, after in pairwise(shards):
        assert after.start == before.stop > before.start
        assert before.first_row is not None
        assert before.rows is not None
        assert after.first_row == before.first_row + before.rows
    assert sum(map(weight, shards)) == sum(sizes)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(SIZES, st.integers(1, 70))
def test_there_are_as_many_shards_as_asked_for_where_there_are_as_many_spans(sizes: list[int], n: int) -> None:
    shards = into(spans(sizes), n, weight)
    assert_whole(shards, sizes)
    assert len(shards) == min(n, len(sizes))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70))
def test_shards_of_equal_spans_differ_by_one_at_most(count: int, n: int) -> None:
    shards = [shard.stop - shard.start for shard in into(spans([10] * count), n, weight)]
    assert max(shards) - min(shards) <= 1


@settings(derandomize=True, max_examples=300, deadline=None)
@given(SIZES, st.integers(1, 120))
def test_shards_of_a_size_are_no_larger_unless_one_span_is(sizes: list[int], most: int) -> None:
    shards = of_size(spans(sizes), most, weight)
    assert_whole(shards, sizes)
    for shard in shards:
        assert weight(shard) <= most or shard.stop - shard.start == 1
