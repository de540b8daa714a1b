"""Each preset computes what the project computes: advantages, returns, losses and their gradients, to 1e-6. And so do
group algorithms with OpenRLHF's settings."""

from dataclasses import replace

import numpy as np
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.algorithms import GRPO, PPO, RLOO, DrGRPO, ReinforcePPBaseline, ScoredRollouts
from rayrlhf.algorithms.policy_loss import TokenTensors
from rayrlhf.algorithms.presets import PRESETS
from rayrlhf.functional import TokenLogprobs
from rayrlhf.types import Rollouts, TrainBatch, offsets_of

LENGTHS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=2, max_size=8)


def ragged(lengths, seed: int) -> references.Ragged:
    generator = torch.Generator().manual_seed(seed)

    def rows(extra: int = 0, scale: float = 1.0):
        return [torch.randn(n + extra, generator=generator, dtype=torch.float64) * scale for _, n in lengths]

    old = [-row.abs() * 2 for row in rows()]
    new, reference = ([o + d for o, d in zip(old, rows(scale=s), strict=True)] for s in (0.3, 0.5))
    scores = 4 * torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    return references.Ragged(old, new, reference, rows(1), rows(1), scores)


def spread(rows, lengths, width: int) -> torch.Tensor:
    """Rows behind their prompts: [B, width], 0 elsewhere."""
    result = torch.zeros(len(lengths), width, dtype=torch.float64)
    for row, (values, (prompt, _)) in enumerate(zip(rows, lengths, strict=True)):
        result[row, prompt : prompt + len(values)] = values
    return result


def rollouts_of(lengths, prompt_ids=None) -> Rollouts:
    prompts = np.array([prompt for prompt, _ in lengths], dtype=np.int32)
    totals = np.array([sum(pair) for pair in lengths], dtype=np.int32)
    count = len(lengths)
    masks = [np.arange(sum(pair)) >= pair[0] for pair in lengths]
    return Rollouts(
        offsets=offsets_of(totals),
        tokens=np.ones(totals.sum(), dtype=np.int32),
        loss_mask=np.concatenate(masks),
        engine_logprobs=np.zeros(totals.sum()),
        versions=np.zeros(totals.sum(), dtype=np.int32),
        prompt_lengths=prompts,
        finished=np.ones(count, dtype=bool),
        prompt_ids=np.arange(count) if prompt_ids is None else np.array(prompt_ids),
        sample_ids=np.zeros(count, dtype=np.int32),
    )


def wide(batch: TrainBatch, width: int) -> TrainBatch:
    """The batch as padded arrays of `width` tokens."""
    arrays = {"advantages": batch.rollouts.padded(batch.advantages, width=width)}
    for name in ("values", "returns", "value_mask"):
        if (states := getattr(batch, name)) is not None:
            arrays[name] = batch.rollouts.padded(states, width=width + 1)
    return replace(batch, **arrays)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 1e-6 of the largest entry."""
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("name", list(PRESETS))
@given(lengths=LENGTHS, padding=st.integers(0, 3), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_a_preset_equals_its_project(name, lengths, padding, seed):
    data = ragged(lengths, seed)
    width = max(map(sum, lengths)) + padding
    algorithm = PPO(**PRESETS[name]["algorithm"])
    values = spread(data.values, lengths, width + 1)
    judged = ScoredRollouts(
        rollouts_of(lengths),
        data.scores.numpy(),
        spread(data.old, lengths, width).numpy(),
        8,
        spread(data.reference, lengths, width).numpy(),
        values.numpy(),
    )
    batch, _ = algorithm.assign_credit(judged, algorithm.kl_coef)
    size = batch.size_of(np.arange(len(lengths)))
    batch = wide(batch, width)
    own, theirs = ([row.clone().requires_grad_() for row in data.new] for _ in range(2))
    own_values, their_values = ([row.clone().requires_grad_() for row in data.new_values] for _ in range(2))
    tensors = TokenTensors(
        judged.mask,
        torch.from_numpy(judged.old_logprobs),
        torch.from_numpy(judged.old_logprobs),
        torch.from_numpy(batch.advantages),
        None,
        *(torch.from_numpy(array) for array in (batch.values, batch.returns, batch.value_mask)),
    )
    new = TokenLogprobs(spread(own, lengths, width), torch.zeros(len(lengths), width))
    policy_loss = algorithm.policy_loss(new, tensors, size, algorithm.kl_coef)[0]
    value_loss = algorithm.value_loss(spread(own_values, lengths, width + 1), tensors, size)[0]

    data.new, data.new_values = theirs, their_values
    wanted = references.PROJECTS[name](data)
    close(torch.from_numpy(batch.advantages), spread(wanted.advantages, lengths, width))
    learnt = torch.where(torch.from_numpy(batch.value_mask), torch.from_numpy(batch.returns), 0.0)
    close(learnt, spread(wanted.returns, lengths, width + 1))
    close(policy_loss.detach(), wanted.policy_loss.detach())
    close(value_loss.detach(), wanted.value_loss.detach())
    (policy_loss + value_loss).backward()
    (wanted.policy_loss + wanted.value_loss).backward()
    close(torch.cat([row.grad for row in own]), torch.cat([row.grad for row in theirs]))
    close(torch.cat([row.grad for row in own_values]), torch.cat([row.grad for row in their_values]))


IN_REWARD = {"baseline_of": "score", "kl_in": "reward", "kl_estimator": "k1", "kl_clamp": 10.0, "kl_coef": 0.3}
GROUPS = {
    "group_norm": GRPO(**IN_REWARD, std_epsilon=1e-9),
    "dr_grpo": DrGRPO(**IN_REWARD),
    "rloo": RLOO(**IN_REWARD),
    "reinforce_baseline": ReinforcePPBaseline(**IN_REWARD, whiten_variance="biased"),
}


@pytest.mark.parametrize("kind", list(GROUPS))
@given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=4, max_size=12),
    per_group=st.integers(2, 4),
    seed=st.integers(0, 10**6),
)
def test_group_algorithms_that_compare_scores_alone_equal_openrlhfs(kind, lengths, per_group, seed):
    data = ragged(lengths, seed)
    width = max(map(sum, lengths))
    groups = [min(row // per_group, len(lengths) // per_group - 1) for row in range(len(lengths))]
    judged = ScoredRollouts(
        rollouts_of(lengths, groups),
        data.scores.numpy(),
        spread(data.old, lengths, width).numpy(),
        8,
        spread(data.reference, lengths, width).numpy(),
    )
    batch = wide(GROUPS[kind].assign_credit(judged, 0.3)[0], width)
    wanted = references.openrlhf_group(kind, data, groups, beta=0.3)
    close(torch.from_numpy(batch.advantages), spread(wanted, lengths, width))
