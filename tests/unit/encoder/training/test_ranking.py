from __future__ import annotations

import math

import numpy as np
import pytest

from encoder.training import ranking
from encoder.training.ranking import HeldOut, mean_ndcg, ndcg
from encoder.training.text_part import choose

NONE = np.zeros(0, np.int64)


def one(scores: list[float], target: int, masked: list[int] | None = None) -> float:
    held_out = HeldOut(
        np.array([target]), np.array(masked or [], np.int64), np.array([0, len(masked or [])])
    )
    return float(ndcg(np.array([scores], np.float32), held_out, slice(0, 1))[0])


def test_the_gain_falls_with_the_rank_and_ends_at_ten() -> None:
    falling = [float(20 - n) for n in range(20)]
    assert one(falling, 0) == 1
    assert math.isclose(one(falling, 2), 1 / math.log2(4))
    assert math.isclose(one(falling, 9), 1 / math.log2(11))
    assert one(falling, 10) == 0


def test_of_equal_scores_half_are_better() -> None:
    assert math.isclose(one([1, 1, 1, 0], 1), 1 / math.log2(3)), "rank 2, the middle of three"
    assert one([0.0] * 1000, 5) == 0, "a model that says nothing ranks nothing"


def test_what_the_user_has_is_not_ranked_but_the_target_is() -> None:
    assert one([3, 2, 1], 2, masked=[0, 1]) == 1
    assert one([3, 2, 1], 2, masked=[0, 1, 2]) == 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(30, 4)), rng.normal(size=(50, 4))
    held_out = HeldOut(rng.integers(0, 50, 30), rng.integers(0, 50, 60), np.arange(0, 61, 2))
    arrays = users.astype(np.float32), items.astype(np.float32)
    whole = mean_ndcg(*arrays, held_out)
    monkeypatch.setattr(ranking, "_CHUNK_SCORES", 350)
    assert len(held_out.chunks(50)) == 5
    assert math.isclose(mean_ndcg(*arrays, held_out), whole)
    assert 0 < whole < 1
    assert mean_ndcg(arrays[0][:0], arrays[1], HeldOut(NONE, NONE, np.zeros(1, np.int64))) == 0


def test_text_is_put_beside_a_model_only_where_it_helps() -> None:
    good = np.eye(12, dtype=np.float32)
    bad = np.roll(good, 1, axis=0)
    held_out = HeldOut(np.arange(12), NONE, np.zeros(13, np.int64))
    helped = choose((bad, good), {0.5: bad, 0.8: good}, good, held_out)
    assert (helped.position_decay, helped.ndcg) == (0.8, 1.0)
    assert helped.share > 0.5
    assert choose((good, good), {0.5: bad}, good, held_out).share == 0
