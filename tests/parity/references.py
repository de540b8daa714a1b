"""PPO of four projects, row by row on ragged lists in float64, from their published formulas.

Written from the sources that `rayrlhf.algorithms.presets` names, and compared with the projects' own code: TRL's by
`test_trl.py`, the others' by `run_peers.py`. A row has n response tokens. Derivations:

TRL, DeepSpeed-Chat: r_j = −β (ℓ_j − ℓref_j) for j < n. Where n is less than the batch's longest response there is a
    slot j = n with the critic's value after the end, and the score stands there; else on n − 1.
    A_j = Σ_k (γλ)^k δ_{j+k}, δ_j = r_j + γ V_{j+1} − V_j. TRL whitens the n advantages with the unbiased variance plus
    1e-8 and learns n + 1 values; DeepSpeed-Chat clips scores to ±5, whitens nothing and learns n (its KL of the padding
    token in the slot is left out here).
OpenRLHF: no slot, V_n = 0; KL clamped to ±10, scores to ±10; whitened with the biased variance, at least 1e-8;
    log-ratios clamped to ±20.
    Without a critic A_j = Σ_{k ≥ j} γ^{k−j} r_k. reinforce has the γ of the settings and compares nothing; the group
    estimators have γ = 1 and compare scores alone: s' = s − mean_g (dr_grpo, reinforce_baseline), that / (σ_g + 1e-9)
    (group_norm, σ unbiased), or s − mean of the others (rloo). reinforce and reinforce_baseline are whitened. (What was
    compared is clipped to ±10 there, which is left out here.)
KoChatGPT: R = score − β · mean_j (exp(x_j) − 1 − x_j), x = ℓ − ℓref; A = R − V, one per response; the policy's loss is
    the mean of the responses' token means; the values' has no ½.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

Rows = list[Tensor]


@dataclass
class Ragged:
    """B responses. Rows are float64; values and new_values have n + 1 entries, all others n."""

    prompts: list[int]  # their lengths
    groups: list[int]  # responses to one prompt have the same number
    finished: list[bool]  # False where the length limit cut it: such responses are the longest
    old: Rows
    new: Rows
    reference: Rows
    values: Rows
    new_values: Rows
    scores: Tensor  # [B]

    @property
    def longest(self) -> int:
        return max(map(len, self.old))


@dataclass
class Found:
    """What a project computes of them; what concerns values is None without a critic."""

    advantages: Rows
    returns: Rows | None
    policy_loss: Tensor
    value_loss: Tensor | None


Project: TypeAlias = Callable[[Ragged], Found]


def trl(data: Ragged) -> Found:
    return _with_slots(data, beta=0.05, clip=None, whitened=True, learns_slot=True, vf_coef=0.1)


def deepspeed_chat(data: Ragged) -> Found:
    return _with_slots(data, beta=0.1, clip=5.0, whitened=False, learns_slot=False, vf_coef=1.0)


def deepspeed_chat_eos_is_pad(data: Ragged) -> Found:
    """The eos is a pad: it leaves the mask, and is the slot itself."""
    advantages, returns, values = [], [], []
    learned = [len(old) - ended for old, ended in zip(data.old, data.finished, strict=True)]
    for row, count in enumerate(learned):
        value = data.values[row][:-1]
        rewards = _added(-0.1 * (data.old[row] - data.reference[row]), data.scores[row].clamp(-5, 5))
        advantages.append(_gae(rewards, value, lam=0.95)[:count])
        values.append(value[:count])
        returns.append(advantages[-1] + values[-1])
    old, new, new_values = (_cut(rows, learned) for rows in (data.old, data.new, data.new_values))
    policy = torch.cat(_surrogates(replace(data, old=old, new=new), advantages)).mean()
    value_loss = torch.cat(_value_errors(new_values, values, returns, clip=0.2)).mean() / 2
    return Found(advantages, returns, policy, value_loss)


def openrlhf(data: Ragged) -> Found:
    values = [row[:-1] for row in data.values]
    rewards = _openrlhf_rewards(data, data.scores.clamp(-10, 10), beta=0.01)
    raw = [_gae(reward, value, lam=1.0) for reward, value in zip(rewards, values, strict=True)]
    returns = [a + v for a, v in zip(raw, values, strict=True)]
    advantages = _whitened(raw)
    policy = _surrogates(data, advantages, max_log_ratio=20.0)
    value = _value_errors([row[:-1] for row in data.new_values], values, returns, clip=0.5)
    return Found(advantages, returns, torch.cat(policy).mean(), torch.cat(value).mean() / 2)


def openrlhf_estimator(kind: str, data: Ragged, beta: float, gamma: float = 1.0) -> Found:
    """Its estimators without a critic."""
    rewards = _openrlhf_rewards(data, _compared(kind, data), beta)
    advantages = [_gae(reward, torch.zeros_like(reward), lam=1.0, gamma=gamma) for reward in rewards]
    if kind in ("reinforce", "reinforce_baseline"):
        advantages = _whitened(advantages)
    return Found(advantages, None, torch.cat(_surrogates(data, advantages, max_log_ratio=20.0)).mean(), None)


def kochatgpt(data: Ragged) -> Found:
    kl = torch.stack([(torch.exp(o - r) - 1 - (o - r)).mean() for o, r in zip(data.old, data.reference, strict=True)])
    reward = data.scores - 0.1 * kl
    old, new = (torch.stack([row[:-1].mean() for row in rows]) for rows in (data.values, data.new_values))
    advantages = [a.expand(len(row)) for a, row in zip(reward - old, data.old, strict=True)]
    policy = torch.stack([row.mean() for row in _surrogates(data, advantages)]).mean()
    value = torch.cat(_value_errors([new], [old], [reward], clip=0.4)).mean()
    return Found(advantages, [r.expand(len(row)) for r, row in zip(reward, data.old, strict=True)], policy, value)


PROJECTS: dict[str, Project] = {
    "trl": trl,
    "deepspeed_chat": deepspeed_chat,
    "openrlhf": openrlhf,
    "kochatgpt": kochatgpt,
}


def _with_slots(
    data: Ragged, beta: float, clip: float | None, whitened: bool, learns_slot: bool, vf_coef: float
) -> Found:
    raw, returns, values, new_values = [], [], [], []
    for row, old in enumerate(data.old):
        score = data.scores[row] if clip is None else data.scores[row].clamp(-clip, clip)
        num_slots = len(old) + (len(old) < data.longest)
        reward = torch.zeros(num_slots, dtype=torch.float64)
        reward[: len(old)] = -beta * (old - data.reference[row])
        value = data.values[row][:num_slots]
        advantage = _gae(_added(reward, score), value, lam=0.95)
        raw.append(advantage)
        learned = num_slots if learns_slot else len(old)
        returns.append((advantage + value)[:learned])
        values.append(value[:learned])
        new_values.append(data.new_values[row][:learned])
    advantages = [row[: len(old)] for row, old in zip(raw, data.old, strict=True)]
    if whitened:
        flat = torch.cat(advantages)
        scale = torch.rsqrt(((flat - flat.mean()) ** 2).sum() / (len(flat) - 1) + 1e-8)
        advantages = [(row - flat.mean()) * scale for row in advantages]
    value_loss = vf_coef * torch.cat(_value_errors(new_values, values, returns, clip=0.2)).mean() / 2
    return Found(advantages, returns, torch.cat(_surrogates(data, advantages)).mean(), value_loss)


def _openrlhf_rewards(data: Ragged, scores: Tensor, beta: float) -> Rows:
    rows = zip(data.old, data.reference, scores, strict=True)
    return [_added(-beta * (old - reference).clamp(-10, 10), score) for old, reference, score in rows]


def _compared(kind: str, data: Ragged) -> Tensor:
    """[B] scores, compared with those of their groups."""
    if kind == "reinforce":
        return data.scores.clamp(-10, 10)
    compared = []
    for group, score in zip(data.groups, data.scores, strict=True):
        ours = torch.stack([s for g, s in zip(data.groups, data.scores, strict=True) if g == group])
        if kind == "rloo":
            compared.append(score - (ours.sum() - score) / (len(ours) - 1))
        elif kind == "group_norm":
            compared.append((score - ours.mean()) / (ours.std(unbiased=True) + 1e-9))
        else:
            compared.append(score - ours.mean())
    return torch.stack(compared)


def _whitened(rows: Rows) -> Rows:
    flat = torch.cat(rows)
    deviation = ((flat - flat.mean()) ** 2).mean().clamp(min=1e-8).sqrt()
    return [(row - flat.mean()) / deviation for row in rows]


def _cut(rows: Rows, lengths: Sequence[int]) -> Rows:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _added(reward: Tensor, score: Tensor) -> Tensor:
    reward = reward.clone()
    reward[-1] += score
    return reward


def _gae(reward: Tensor, value: Tensor, lam: float, gamma: float = 1.0) -> Tensor:
    """Written as the double sum."""
    after = torch.cat([value[1:], torch.zeros(1, dtype=torch.float64)])
    delta = reward + gamma * after - value
    length = len(delta)
    return torch.stack([sum((gamma * lam) ** k * delta[j + k] for k in range(length - j)) for j in range(length)])


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
