"""Algorithms, one module each. Adding one is one module and one line in the union."""

from typing import Annotated

from pydantic import Field

from rayrlhf.algorithms.base import Algorithm, ScoredRollouts
from rayrlhf.algorithms.grpo import GRPO, DrGRPO
from rayrlhf.algorithms.ppo import PPO
from rayrlhf.algorithms.reinforce_pp import ReinforcePP, ReinforcePPBaseline
from rayrlhf.algorithms.remax import ReMax
from rayrlhf.algorithms.rloo import RLOO
from rayrlhf.config import short_form

AnyAlgorithm = Annotated[
    Annotated[PPO | GRPO | DrGRPO | RLOO | ReinforcePP | ReinforcePPBaseline | ReMax, Field(discriminator="kind")],
    short_form(kind="ppo"),
]
"""`grpo` is short for `{kind: grpo}`; without a kind it is PPO."""

__all__ = [
    "GRPO",
    "PPO",
    "RLOO",
    "Algorithm",
    "AnyAlgorithm",
    "DrGRPO",
    "ReMax",
    "ReinforcePP",
    "ReinforcePPBaseline",
    "ScoredRollouts",
]
