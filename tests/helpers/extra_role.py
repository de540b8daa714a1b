"""A role that rayrlhf does not have, as one adds it: this file, a line in ROLES, and a field in `PPOConfig`."""

import numpy as np
import torch

from rayrlhf.algorithms import GRPO, ScoredRollouts
from rayrlhf.algorithms.base import Credit
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import Output, RoleInputs, RoleSettings, RoleSpec
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import Rollouts, RowShare


class BrevityRole(RoleSettings):
    """Workers that judge how short a response is."""

    scale: float = 0.25


class BrevityJudge:
    """The worker."""

    def __init__(self, scale: float, ranks: Ranks) -> None:
        self._scale, self._ranks = scale, ranks

    def judge(self, rollouts: Rollouts) -> RowShare:
        rows = np.arange(self._ranks.rank, len(rollouts), self._ranks.world_size)
        return RowShare(rows, -self._scale * rollouts.response_lengths[rows].astype(np.float32))


def _build(config: "ConfigWithBrevity", inputs: RoleInputs, ranks: Ranks) -> BrevityJudge:
    return BrevityJudge(config.brevity.scale, ranks)


BREVITY = RoleSpec("brevity", _build, output=lambda config: Output("brevity", "judge"), restartable=True)  # type: ignore[arg-type]


class ConfigWithBrevity(PPOConfig):
    """The field that the new role needs."""

    brevity: BrevityRole = BrevityRole()


class BriefGRPO(GRPO):
    """GRPO whose advantages also count how short a response is."""

    def credit(self, rewards: torch.Tensor, scored: ScoredRollouts, mask: torch.Tensor) -> Credit:
        bonus = torch.from_numpy(scored.extras["brevity"].copy()).unsqueeze(1)
        assert torch.equal(bonus.squeeze(1), -0.5 * torch.from_numpy(scored.rollouts.response_lengths).float())
        return Credit(super().credit(rewards, scored, mask).advantages + bonus)
