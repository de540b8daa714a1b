"""The roles of a PPO run, one file each: its settings, and what it is (`RoleSpec`).

Adding a role is one file here, one line in ROLES, and one field in `PPOConfig` for its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayrlhf.ppo.roles.credit import CREDIT
from rayrlhf.ppo.roles.critic import CRITIC
from rayrlhf.ppo.roles.policy import POLICY
from rayrlhf.ppo.roles.reference import REFERENCE
from rayrlhf.ppo.roles.reward import REWARD
from rayrlhf.ppo.roles.sampler import SAMPLER
from rayrlhf.ppo.roles.spec import Output, RoleInputs, RoleSettings, RoleSpec

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig

ROLES: tuple[RoleSpec, ...] = (SAMPLER, REWARD, POLICY, REFERENCE, CRITIC, CREDIT)


def roles_of(config: PPOConfig) -> tuple[RoleSpec, ...]:
    """The roles that a run needs; the others are not started."""
    return tuple(role for role in ROLES if role.needed(config))


__all__ = ["ROLES", "Output", "RoleInputs", "RoleSettings", "RoleSpec", "roles_of"]
