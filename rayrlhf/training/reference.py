"""A frozen reference policy, for losses that compare with one.

It never changes, so its log-probabilities are computed once, before the policy is loaded: two models are never in
memory together. A restarted worker computes them again, from the same folder.
"""

from __future__ import annotations

from torch import nn

from rayrlhf.models import Policy
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.parallel import Ranks, distribute


def load_reference(model: str, config: TrainingConfig, ranks: Ranks) -> nn.Module:
    """The policy in folder `model`, loaded as the trained one is, so that the two differ by what was learned only."""
    policy = Policy.load(model, config.dtype, config.load_in_4bit).requires_grad_(False).eval()
    # Nothing is trained here, so replicas need no DDP wrapper. Shards do: one device may not hold the whole model.
    return distribute(policy, "fsdp", ranks) if config.sharding == "fsdp" else policy.to(ranks.device)
