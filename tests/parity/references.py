"""PPO of four projects, row by row on ragged lists in float64, from their published formulas.

Written from the sources that `rayrlhf.algorithms.presets` names. The same formulas were compared with the projects' own
code (TRL's `PPOTrainer.train`, OpenRLHF's experience maker and losses, DeepSpeed-Chat's `train_rlhf`, KoChatGPT's
experience maker and losses) and agreed within 4e-15. A row has n response tokens. Derivations:

TRL, DeepSpeed-Chat: r_j = −β (ℓ_j − ℓref_j) for j < n. Where n is less than the batch's longest response there is a
    slot j = n with the critic's value after the end, and the score stands there; else on n − 1.
    A_j = Σ_k (γλ)^k δ_{j+k}, δ_j = r_j + γ V_{j+1} − V_j. TRL whitens the n advantages with the unbiased variance plus
    1e-8 and learns n + 1 values; DeepSpeed-Chat clips scores to ±5, whitens nothing and learns n (its KL of the padding
    token in the slot is left out here).
OpenRLHF: no slot, V_n = 0; KL clamped to ±10, scores to ±10; whitened with the biased variance, at least 1e-8;
    log-ratios clamped to ±20.
    Its group estimators compare scores alone: s' = s − mean_g (dr_grpo, reinforce_baseline), that / (σ_g + 1e-9)
    (group_norm, σ unbiased), or s − mean of the others (rloo); A_j = s' + Σ_{k ≥ j} −β KL_k, which only
    reinforce_baseline whitens. (Scores are clipped after the comparison there, which is left out here.)
KoChatGPT: R = score − β · mean_j (exp(x_j) − 1 − x_j), x = ℓ − ℓref; A = R − V, one per response; the policy's loss is
    the mean of the responses' token means; the values' has no ½.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = list[Tensor]


@dataclass
class Ragged:
    """One tensor per response, float64. values and new_values have n + 1 entries, all others n."""

    old: Rows
    new: Rows
    reference: Rows
    values: Rows
    new_values: Rows
    scores: Tensor  # [B]


@dataclass
class Found:
    """What a project computes of them."""

    advantages: Rows
    returns: Rows
    policy_loss: Tensor
    value_loss: Tensor


def trl(data: Ragged) -> Found:
    return _with_slots(data, beta=0.05, clip=None, whitened=True, learns_slot=True, vf_coef=0.1)


def deepspeed_chat(data: Ragged) -> Found:
    return _with_slots(data, beta=0.1, clip=5.0, whitened=False, learns_slot=False, vf_coef=1.0)


def openrlhf(data: Ragged) -> Found:
    rewards, values = [], [row[:-1] for row in data.values]
    for old, reference, score in zip(data.old, data.reference, data.scores, strict=True):
        reward = -0.01 * (old - reference).clamp(-10, 10)
        rewards.append(_added(reward, score.clamp(-10, 10)))
    raw = [_gae(reward, value, lam=1.0) for reward, value in zip(rewards, values, strict=True)]
    returns = [a + v for a, v in zip(raw, values, strict=True)]
    flat = torch.cat(raw)
    deviation = ((flat - flat.mean()) ** 2).mean().clamp(min=1e-8).sqrt()
    advantages = [(row - flat.mean()) / deviation for row in raw]
    policy = _surrogates(data, advantages, max_log_ratio=20.0)
    value = _value_errors([row[:-1] for row in data.new_values], values, returns, clip=0.5)
    return Found(advantages, returns, torch.cat(policy).mean(), torch.cat(value).mean() / 2)


def kochatgpt(data: Ragged) -> Found:
    kl = torch.stack([(torch.exp(o - r) - 1 - (o - r)).mean() for o, r in zip(data.old, data.reference, strict=True)])
    reward = data.scores - 0.1 * kl
    old, new = (torch.stack([row[:-1].mean() for row in rows]) for rows in (data.values, data.new_values))
    advantages = [a.expand(len(row)) for a, row in zip(reward - old, data.old, strict=True)]
    policy = torch.stack([row.mean() for row in _surrogates(data, advantages)]).mean()
    value = torch.cat(_value_errors([new], [old], [reward], clip=0.4)).mean()
    return Found(advantages, [r.expand(len(row)) for r, row in zip(reward, data.old, strict=True)], policy, value)


def openrlhf_group(kind: str, data: Ragged, groups: Sequence[int], beta: float) -> Rows:
    """Advantages of its estimators that compare the responses to one prompt."""
    compared = []
    for group, score in zip(groups, data.scores, strict=True):
        ours = torch.stack([s for g, s in zip(groups, data.scores, strict=True) if g == group])
        if kind == "rloo":
            compared.append(score - (ours.sum() - score) / (len(ours) - 1))
        elif kind == "group_norm":
            compared.append((score - ours.mean()) / (ours.std(unbiased=True) + 1e-9))
        else:
            compared.append(score - ours.mean())
    advantages = []
    for shaped, old, reference in zip(compared, data.old, data.reference, strict=True):
        penalties = -beta * (old - reference).clamp(-10, 10)
        advantages.append(torch.stack([shaped + penalties[j:].sum() for j in range(len(penalties))]))
    if kind != "reinforce_baseline":
        return advantages
    flat = torch.cat(advantages)
    deviation = ((flat - flat.mean()) ** 2).mean().clamp(min=1e-8).sqrt()
    return [(row - flat.mean()) / deviation for row in advantages]


PROJECTS: dict[str, Callable[[Ragged], Found]] = {
    "trl": trl,
    "deepspeed_chat": deepspeed_chat,
    "openrlhf": openrlhf,
    "kochatgpt": kochatgpt,
}


def _with_slots(
    data: Ragged, beta: float, clip: float | None, whitened: bool, learns_slot: bool, vf_coef: float
) -> Found:
    longest = max(map(len, data.old))
    raw, returns, values, new_values = [], [], [], []
    for row, old in enumerate(data.old):
        score = data.scores[row] if clip is None else data.scores[row].clamp(-clip, clip)
        num_slots = len(old) + (len(old) < longest)
        reward = torch.zeros(num_slots, dtype=torch.float64)
        reward[: len(old)] = -beta * (old - data.reference[row])
        value = data.values[row][:num_slots]
        advantage = _gae(_added(reward, score), value, lam=0.95)
        raw.append(advantage)
        learnt = num_slots if learns_slot else len(old)
        returns.append((advantage + value)[:learnt])
        values.append(value[:learnt])
        new_values.append(data.new_values[row][:learnt])
    advantages = [row[: len(old)] for row, old in zip(raw, data.old, strict=True)]
    if whitened:
        flat = torch.cat(advantages)
        scale = torch.rsqrt(((flat - flat.mean()) ** 2).sum() / (len(flat) - 1) + 1e-8)
        advantages = [(row - flat.mean()) * scale for row in advantages]
    value_loss = vf_coef * torch.cat(_value_errors(new_values, values, returns, clip=0.2)).mean() / 2
    return Found(advantages, returns, torch.cat(_surrogates(data, advantages)).mean(), value_loss)


def _added(reward: Tensor, score: Tensor) -> Tensor:
    reward = reward.clone()
    reward[-1] += score
    return reward


def _gae(reward: Tensor, value: Tensor, lam: float) -> Tensor:
    """Written as the double sum, γ = 1."""
    after = torch.cat([value[1:], torch.zeros(1, dtype=torch.float64)])
    delta = reward + after - value
    length = len(delta)
    return torch.stack([sum(lam**k * delta[j + k] for k in range(length - j)) for j in range(length)])


def _surrogates(data: Ragged, advantages: Sequence[Tensor], max_log_ratio: float = 1e9) -> Rows:
    losses = []
    for new, old, advantage in zip(data.new, data.old, advantages, strict=True):
        ratio = torch.exp((new - old).clamp(-max_log_ratio, max_log_ratio))
        losses.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
    return losses


def _value_errors(new: Sequence[Tensor], old: Sequence[Tensor], returns: Sequence[Tensor], clip: float) -> Rows:
    errors = []
    for v, o, target in zip(new, old, returns, strict=True):
        near = torch.minimum(torch.maximum(v, o - clip), o + clip)
        errors.append(torch.maximum((v - target) ** 2, (near - target) ** 2))
    return errors
