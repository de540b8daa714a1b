"""Our own classes on the batches of `references`, and what is compared of two projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from references import Found, Project, Ragged, Rows
from torch import Tensor

from rayrlhf.algorithms import GRPO, RLOO, DrGRPO, ReinforcePP, ReinforcePPBaseline, ScoredRollouts
from rayrlhf.algorithms.base import Algorithm
from rayrlhf.algorithms.policy_loss import TokenTensors
from rayrlhf.functional import TokenLogprobs
from rayrlhf.types import Rollouts, TrainBatch, offsets_of

OPENRLHF: dict[str, Any] = {
    "kl_in": "reward",
    "kl_estimator": "k1",
    "kl_clamp": 10.0,
    "kl_coef": 0.3,
    "aggregation": "token_mean",
    "max_log_ratio": 20.0,
}
ESTIMATORS: dict[str, Algorithm] = {
    "reinforce": ReinforcePP(**OPENRLHF, whiten_variance="biased", score_clip=10.0),
    "group_norm": GRPO(**OPENRLHF, baseline_of="score", std_epsilon=1e-9),
    "dr_grpo": DrGRPO(**OPENRLHF, baseline_of="score"),
    "rloo": RLOO(**OPENRLHF, baseline_of="score"),
    "reinforce_baseline": ReinforcePPBaseline(**OPENRLHF, baseline_of="score", whiten_variance="biased"),
}
"""OpenRLHF's estimators without a critic."""


def ragged(lengths: Sequence[tuple[int, int]], seed: int, per_group: int = 1) -> Ragged:
    """A batch of responses with these (prompt, response) lengths, some of the longest unfinished. A group has at least
    `per_group` of them."""
    generator = torch.Generator().manual_seed(seed)

    def rows(extra: int = 0, scale: float = 1.0) -> Rows:
        return [torch.randn(n + extra, generator=generator, dtype=torch.float64) * scale for _, n in lengths]

    old = [-row.abs() * 2 for row in rows()]
    new, reference = ([o + d for o, d in zip(old, rows(scale=s), strict=True)] for s in (0.3, 0.5))
    scores = 4 * torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    longest = max(n for _, n in lengths)
    cut = torch.rand(len(lengths), generator=generator) < 0.5
    return Ragged(
        prompts=[prompt for prompt, _ in lengths],
        groups=[min(row // per_group, len(lengths) // per_group - 1) for row in range(len(lengths))],
        finished=[n < longest or not c for (_, n), c in zip(lengths, cut.tolist(), strict=True)],
        old=old,
        new=new,
        reference=reference,
        values=rows(1),
        new_values=rows(1),
        scores=scores,
    )


def ours(algorithm: Algorithm, data: Ragged, padding: int = 0) -> Found:
    """What `algorithm` computes of the batch, in rows that are padded by `padding` more than they need."""
    rollouts = rollouts_of(data)
    width = int(rollouts.lengths.max()) + padding

    def spread(rows: Rows, extra: int = 0) -> Tensor:
        """Rows behind their prompts: [B, width + extra], 0 elsewhere."""
        behind = [torch.nn.functional.pad(row, (prompt, 0)) for row, prompt in zip(rows, data.prompts, strict=True)]
        return padded(behind, width + extra)

    old, reference, values = spread(data.old).numpy(), spread(data.reference).numpy(), spread(data.values, 1).numpy()
    critic = values if algorithm.needs_critic else None
    judged = ScoredRollouts(rollouts, data.scores.numpy(), old, data.longest, reference, critic)
    batch, _ = algorithm.assign_credit(judged, algorithm.kl_coef)
    size = batch.size_of(np.arange(len(rollouts)))
    batch = wide(batch, width)
    states = (batch.values, batch.returns, batch.value_mask)
    tensors = TokenTensors(
        torch.from_numpy(batch.rollouts.padded(batch.rollouts.loss_mask, width=width)),
        torch.from_numpy(old),
        torch.from_numpy(old),
        torch.from_numpy(batch.advantages),
        None,
        *(None if array is None else torch.from_numpy(array) for array in states),
    )
    new = TokenLogprobs(spread(data.new), torch.zeros(len(rollouts), width))
    policy_loss, _ = algorithm.policy_loss(new, tensors, size, algorithm.kl_coef)
    advantages = responses(tensors.advantages, data)
    if tensors.returns is None or tensors.value_mask is None:
        return Found(advantages, None, policy_loss, None)
    returns = responses(torch.where(tensors.value_mask, tensors.returns, 0.0), data, extra=1)
    value_loss, _ = algorithm.value_loss(spread(data.new_values, 1), tensors, size)
    return Found(advantages, returns, policy_loss, value_loss)


def rollouts_of(data: Ragged) -> Rollouts:
    responses = np.array([len(row) for row in data.old])
    totals = (np.array(data.prompts) + responses).astype(np.int32)
    masks = [np.arange(total) >= prompt for total, prompt in zip(totals, data.prompts, strict=True)]
    return Rollouts(
        offsets=offsets_of(totals),
        tokens=np.ones(totals.sum(), dtype=np.int32),
        loss_mask=np.concatenate(masks),
        engine_logprobs=np.zeros(totals.sum()),
        versions=np.zeros(totals.sum(), dtype=np.int32),
        prompt_lengths=np.array(data.prompts, dtype=np.int32),
        finished=np.array(data.finished),
        prompt_ids=np.array(data.groups),
        sample_ids=np.zeros(len(totals), dtype=np.int32),
    )


def wide(batch: TrainBatch, width: int) -> TrainBatch:
    """The batch as padded arrays of `width` tokens."""
    arrays = {"advantages": batch.rollouts.padded(batch.advantages, width=width)}
    for name in ("values", "returns", "value_mask"):
        if (states := getattr(batch, name)) is not None:
            arrays[name] = batch.rollouts.padded(states, width=width + 1)
    return replace(batch, **arrays)


def responses(columns: Tensor, data: Ragged, extra: int = 0) -> Rows:
    """[B, T] → each row's response and `extra` columns after it."""
    rows = zip(columns, data.prompts, data.old, strict=True)
    return [row[prompt : prompt + len(old) + extra] for row, prompt, old in rows]


def padded(rows: Rows, width: int, fill: float = 0.0) -> Tensor:
    """[B, width], `fill` after the rows' ends."""
    return torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=fill) for row in rows])


def quantities(project: Project, data: Ragged) -> dict[str, Tensor]:
    """What a project computes of the batch, and the gradients of its losses."""
    new, new_values = ([row.clone().requires_grad_() for row in rows] for rows in (data.new, data.new_values))
    found = project(replace(data, new=new, new_values=new_values))
    result = {
        "advantages": padded(found.advantages, data.longest),
        "policy loss": found.policy_loss.detach(),
        "policy gradient": gradient(found.policy_loss, new),
    }
    if found.returns is not None and found.value_loss is not None:
        result["returns"] = padded(found.returns, data.longest + 1)
        result["value loss"] = found.value_loss.detach()
        result["value gradient"] = gradient(found.value_loss, new_values)
    return result


def gradient(loss: Tensor, rows: Rows) -> Tensor:
    """Of all rows, end to end."""
    return torch.cat(torch.autograd.grad(loss, rows, allow_unused=True, materialize_grads=True))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest entry wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))
