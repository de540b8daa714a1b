"""The credit assigner: it works while everyone else waits, and reserves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayrlhf.ppo.roles.spec import RoleInputs, RoleSpec
from rayrlhf.training.parallel import Ranks

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.credit import CreditAssigner


def _build(config: PPOConfig, inputs: RoleInputs, ranks: Ranks) -> CreditAssigner:
    from rayrlhf.workers.credit import CreditAssigner

    return CreditAssigner(
        config.algorithm,
        config.model,
        config.sampling.max_completion_length,
        config.compares_logprobs,
        config.reward.max_reject_share,
    )


CREDIT = RoleSpec("credit", _build, reserves=False)
