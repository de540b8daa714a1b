"""The mathematics of RLHF as pure functions on tensors.

Every per-token tensor is [B, T] and index t speaks about token t (see `rayrlhf.types`). Masks are 1 on the
tokens that are trained on. Reductions are written so that padding never changes a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probabilities of given tokens, and the entropies of their distributions."""

    logprobs: Tensor  # [N] float32
    entropy: Tensor | None = None  # [N] float32, if asked for


def token_logprobs(
    logits: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> TokenLogprobs:
    """log softmax(logits / temperature)[targets] and, if asked, the entropy, in float32.

    logits: [N, V]; targets: [N] int64. The log-probability is target logit − logsumexp, so no second [N, V] tensor is
    made for it; the entropy costs two.
    """
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    normalizer = torch.logsumexp(logits, dim=-1)  # [N]
    logprobs = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - normalizer
    if not with_entropy:
        return TokenLogprobs(logprobs)
    return TokenLogprobs(logprobs, normalizer - (torch.softmax(logits, dim=-1) * logits).sum(-1))


def chunked_token_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk_size: int = 1024,
    with_entropy: bool = False,
) -> TokenLogprobs:
    """`token_logprobs(head(hidden), targets)` with at most [chunk_size, V] logits alive, backward included.

    hidden: [N, H] states before each target; targets: [N]. Each chunk is recomputed in the backward pass.
    """

    def one_chunk(states: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        result = token_logprobs(head(states), wanted, temperature, with_entropy)
        return (result.logprobs,) if result.entropy is None else (result.logprobs, result.entropy)

    recompute = torch.is_grad_enabled() and hidden.shape[0] > chunk_size
    chunks = [
        checkpoint(one_chunk, states, wanted, use_reentrant=False) if recompute else one_chunk(states, wanted)
        for states, wanted in zip(hidden.split(chunk_size), targets.split(chunk_size), strict=True)
    ]
    return TokenLogprobs(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` where mask is set. Entries outside the mask may hold anything, NaN included."""
    return torch.where(mask.bool(), values, torch.zeros_like(values)).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where mask is set; 0 for an empty mask."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True, biased: bool = False) -> Tensor:
    """`values` scaled to variance 1 over the mask, and moved to mean 0 if `shift_mean`; 0 outside.

    The variance is divided by N − 1, or by N if `biased`. Fewer than two entries have none: they are only shifted.
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    if count < 2:
        whitened = values - mean
    else:
        squares = masked_sum((values - mean) ** 2, mask)
        variance = (squares / count).clamp(min=1e-8) if biased else squares / (count - 1) + 1e-8
        whitened = (values - mean) * torch.rsqrt(variance)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask.bool(), whitened, torch.zeros_like(whitened))


def kl_k1(log_ratio: Tensor) -> Tensor:
    """Unbiased estimate of KL(π || π_ref) per token from log_ratio = log π − log π_ref; may be negative.

    Schulman 2020, "Approximating KL divergence".
    """
    return log_ratio


def kl_k2(log_ratio: Tensor) -> Tensor:
    """½ log_ratio²: biased, low variance, never negative (Schulman 2020)."""
    return 0.5 * log_ratio**2


def kl_k3(log_ratio: Tensor) -> Tensor:
    """exp(−log_ratio) − 1 + log_ratio: unbiased and never negative (Schulman 2020)."""
    return torch.exp(-log_ratio) - 1 + log_ratio


def kl_k3_reversed(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio) − 1 − log_ratio: k3 with the ratio the other way round, which is no estimate of this KL.

    ColossalAI of March 2023 and KoChatGPT took it.
    """
    return kl_k3(-log_ratio)


KLEstimator: TypeAlias = Literal["k1", "k2", "k3", "k3_reversed"]
KL_ESTIMATORS: dict[KLEstimator, Callable[[Tensor], Tensor]] = {
    "k1": kl_k1,
    "k2": kl_k2,
    "k3": kl_k3,
    "k3_reversed": kl_k3_reversed,
}


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float | Tensor) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation over the masked tokens (Schulman et al. 2016, eq. 16).

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, where t + 1 is the next masked token: a gap in the mask (a
    tool's output between two turns) is skipped, as if its tokens were not there. The value after the last masked token
    is 0. lam: one number, or [B], each row's own. Returns (advantages, returns), both [B, T], 0 outside the mask, with
    returns = advantages + values.
    """
    mask = mask.bool()
    advantages = torch.zeros_like(values)
    next_advantage = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(mask[:, t], delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = next_advantage
    zeros = torch.zeros_like(values)
    return torch.where(mask, advantages, zeros), torch.where(mask, advantages + values, zeros)


def last_masked(mask: Tensor) -> Tensor:
    """[B, T] bool → [B] int64, the index of each row's last masked token. Every row must have one."""
    assert bool(mask.any(1).all()), "a row has no token that is trained on"
    width = mask.shape[1]
    return width - 1 - mask.flip(1).int().argmax(1)


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Σ_{s ≥ t} γ^{s−t} r_s over masked tokens, counting these alone: [B, T], 0 outside the mask."""
    zeros = torch.zeros_like(rewards)
    return gae(torch.where(mask.bool(), rewards, zeros), zeros, mask, gamma, lam=1.0)[1]


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T] → [B], each row's mean over its mask; 0 for an empty row."""
    kept = torch.where(mask.bool(), values, torch.zeros_like(values))
    return kept.sum(1) / mask.sum(1).clamp(min=1)


def group_size(groups: Tensor) -> Tensor:
    """[B] numbers of groups → [B], how many rows each row's group has."""
    return torch.bincount(groups)[groups]


def group_mean(values: Tensor, groups: Tensor) -> Tensor:
    """[B], the mean of each row's group."""
    sums = torch.zeros(int(groups.max()) + 1, dtype=values.dtype).index_add(0, groups, values)
    return sums[groups] / group_size(groups)


def group_std(values: Tensor, groups: Tensor) -> Tensor:
    """[B], the unbiased standard deviation of each row's group; 0 in a group of one."""
    count = group_size(groups)
    variance = group_mean((values - group_mean(values, groups)) ** 2, groups) * count / (count - 1).clamp(min=1)
    return variance.sqrt()


def pairwise_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """−log σ(r_chosen − r_rejected − margin) per pair (Bradley-Terry; margin as in Llama 2, section 3.2.2)."""
    return -torch.nn.functional.logsigmoid(chosen - rejected - margin)


def log1mexp(log_p: Tensor) -> Tensor:
    """log(1 − p) from log p ≤ 0, accurate for both small and large p, and finite, gradient included, also at p = 1
    (Mächler 2012, eq. 7)."""
    half = math.log(0.5)
    log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).eps)
    # Each side sees values of its own half only: the other's would have no finite gradient.
    large = torch.log(-torch.expm1(log_p.clamp(min=half)))
    small = torch.log1p(-torch.exp(log_p.clamp(max=half)))
    return torch.where(log_p > half, large, small)


ArrayT = TypeVar("ArrayT", Tensor, np.ndarray)


def wins(chosen: ArrayT, rejected: ArrayT) -> ArrayT:
    """1 where chosen is above rejected, ½ where they are equal, 0 where it is below: its mean is an accuracy."""
    return (chosen > rejected) * 1.0 + (chosen == rejected) * 0.5
