"""Rewards, one module each. Adding one is one module and one line in the union."""

from rayrlhf.rewards.reward_model import RewardModelReward

Reward = RewardModelReward
"""The union of rewards; a second one makes it `Annotated[A | B, Field(discriminator="kind")]`."""

__all__ = ["Reward", "RewardModelReward"]
