"""What must not change the credit of a step's tokens: the order of samples, and padding on either side of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from padded_arrays import mask_of, padded_batch

from rayrlhf.algorithms import (
    GRPO,
    PPO,
    RLOO,
    Algorithm,
    DrGRPO,
    ReinforcePP,
    ReinforcePPBaseline,
    ReMax,
    ScoredRollouts,
)
from rayrlhf.algorithms.base import Baselines
from rayrlhf.algorithms.presets import PRESETS
from rayrlhf.types import FloatArray, Rollouts, offsets_of

ALGORITHMS: list[Algorithm] = [
    PPO(),
    PPO(whiten_rewards=True, gamma=0.9),
    *(PPO(**preset["algorithm"]) for preset in PRESETS.values()),
    GRPO(),
    GRPO(scale_advantages="batch"),
    DrGRPO(),
    RLOO(),
    RLOO(baseline_of="score"),
    ReinforcePP(),
    ReinforcePPBaseline(),
    ReMax(),
    ReMax(score_clip=0.5, missing_eos_penalty=1.0, overlong_penalty={"buffer_tokens": 4}),
    PPO(mask_truncated=True),
    PPO(**PRESETS["deepspeed_chat"]["algorithm"], eos_is_pad=True),
]


def random_judged(rollouts: Rollouts, seed: int) -> ScoredRollouts:
    rng = np.random.default_rng(seed)
    count, width = mask_of(rollouts).shape
    old, reference = (np.where(mask_of(rollouts), -rng.random((count, width)), 0) for _ in range(2))
    values = rng.normal(size=(count, width + 1))
    scores, baselines = rng.normal(size=count), rng.normal(size=count)
    arrays = (array.astype(np.float32) for array in (scores, old, reference, values, baselines))
    scores, old, reference, values, baselines = arrays
    greedy = Baselines(baselines, rng.integers(1, 8, count), rng.random(count) < 0.5)
    return ScoredRollouts(rollouts, scores, old, 8, reference, values, greedy)


def moved(judged: ScoredRollouts, left: int, right: int) -> ScoredRollouts:
    """Columns that belong to no response, before and after all that are there, with something in them."""

    def pad(array: FloatArray) -> FloatArray:
        return np.pad(array, ((0, 0), (left, right)), constant_values=0.7)

    rollouts = judged.rollouts
    rows = [rollouts.take(np.array([row])) for row in range(len(rollouts))]
    shifted = replace(
        rollouts,
        offsets=offsets_of(rollouts.lengths + left),
        tokens=np.concatenate([np.pad(row.tokens, (left, 0), constant_values=9) for row in rows]),
        loss_mask=np.concatenate([np.pad(row.loss_mask, (left, 0)) for row in rows]),
        engine_logprobs=np.concatenate([np.pad(row.engine_logprobs, (left, 0)) for row in rows]),
        versions=np.concatenate([np.pad(row.versions, (left, 0)) for row in rows]),
        prompt_lengths=rollouts.prompt_lengths + np.int32(left),
    )
    arrays = {name: pad(getattr(judged, name)) for name in ("old_logprobs", "ref_logprobs", "values")}
    return replace(judged, rollouts=shifted, **arrays)


def credit_of(algorithm: Algorithm, judged: ScoredRollouts) -> list[FloatArray]:
    """Each row's advantages, and where there is a critic its returns, in order of prompt and sample."""
    batch = padded_batch(algorithm.assign_credit(judged, 0.3)[0])
    order = np.lexsort((batch.rollouts.sample_ids, batch.rollouts.prompt_ids))
    mask = mask_of(batch.rollouts)
    found = [batch.advantages[row][mask[row]] for row in order]
    if batch.returns is not None and batch.value_mask is not None:
        found += [batch.returns[row][batch.value_mask[row]] for row in order]
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: str(algorithm.kind))
@given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=4, max_size=8),
    order=st.randoms(use_true_random=False),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 1000),
)
def test_neither_order_nor_padding_on_either_side_changes_the_credit(
    algorithm, make_rollouts, lengths, order, padding, seed
):
    rows = np.arange(len(lengths))
    rollouts = make_rollouts(lengths, seed=seed, prompt_ids=(rows // 2 * 3).tolist())
    judged = random_judged(replace(rollouts, sample_ids=(rows % 2).astype(np.int32)), seed)
    order.shuffle(shuffled := rows.tolist())
    one = credit_of(algorithm, judged)
    other = credit_of(algorithm, moved(judged.take(np.array(shuffled)), *padding))
    scale = max(np.abs(row).max(initial=0) for row in one)
    for wanted, found in zip(one, other, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * scale)
