"""Rewards, one module each. Adding one is one module and one line in the union of `sum.py`."""

from typing import Annotated

from pydantic import Field

from rayrlhf.rewards.base import RewardError, SampleText, Score
from rayrlhf.rewards.function import FunctionReward
from rayrlhf.rewards.http import HttpReward
from rayrlhf.rewards.reward_model import RewardModelReward
from rayrlhf.rewards.rules import RulesReward
from rayrlhf.rewards.sum import SingleReward, SumReward, WeightedReward

Reward = Annotated[SingleReward | SumReward, Field(discriminator="kind")]


def singles(source: Reward) -> list[SingleReward]:
    """The rewards of a sum, or the one that `source` is."""
    return [part.source for part in source.parts] if isinstance(source, SumReward) else [source]


__all__ = [
    "FunctionReward",
    "HttpReward",
    "Reward",
    "RewardError",
    "RewardModelReward",
    "RulesReward",
    "SampleText",
    "Score",
    "SingleReward",
    "SumReward",
    "WeightedReward",
    "singles",
]
