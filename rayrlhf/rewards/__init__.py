"""Rewards, one module each. Adding one is one module and one line in the union of `sum.py`."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rayrlhf.config import ConfigError
from rayrlhf.rewards.base import RewardError, SampleText, Score, rewards_rank
from rayrlhf.rewards.child import FIELDS
from rayrlhf.rewards.function import FunctionReward
from rayrlhf.rewards.http import HttpReward
from rayrlhf.rewards.reward_model import RewardModelReward
from rayrlhf.rewards.rules import RulesReward
from rayrlhf.rewards.sum import SingleReward, SumReward, WeightedReward
from rayrlhf.rewards.text import TextJudge, TextReward

Reward = Annotated[SingleReward | SumReward, Field(discriminator="kind")]


def singles(source: Reward) -> list[SingleReward]:
    """The rewards of a sum, or the one that `source` is."""
    return [part.source for part in source.parts] if isinstance(source, SumReward) else [source]


def check_columns(source: Reward, columns: Sequence[str]) -> None:
    """Raises ConfigError for columns of the data whose names mean something else to a reward, or that none can get."""
    if columns and not any(isinstance(single, FunctionReward | HttpReward) for single in singles(source)):
        raise ConfigError("data.columns: reward.source reads no columns: leave them out, or add a function or a server")
    taken = dict.fromkeys(FIELDS, "is a name that every reward gives itself")
    for single in singles(source):
        if isinstance(single, FunctionReward):
            taken |= dict.fromkeys(single.arguments, "is one of reward.source.arguments")
    for name in columns:
        if name in taken:
            raise ConfigError(
                f"data.columns: {name!r} {taken[name]}: name the column my_{name} in data.columns, and write "
                f"columns: {{my_{name}: {name}}} in its source"
            )


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
    "TextJudge",
    "TextReward",
    "WeightedReward",
    "check_columns",
    "rewards_rank",
    "singles",
]
