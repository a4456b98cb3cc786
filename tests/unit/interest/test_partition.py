"""Partitions as Java's producers choose them."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from interest.partition import murmur2, partition_of


@given(st.binary(max_size=300))
def test_murmur2_agrees_with_another_implementation(data: bytes) -> None:
    assert murmur2(data) & 0x7FFFFFFF == reference(data) & 0x7FFFFFFF


@pytest.mark.parametrize(
    ("key", "expected"),
    # From Apache Kafka's UtilsTest.testMurmur2, as unsigned numbers.
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_agrees_with_the_java_client(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF


@given(st.text(min_size=1), st.integers(1, 500))
def test_a_partition_lies_in_range(key: str, n: int) -> None:
    assert 0 <= partition_of(key, n) < n
