"""Algorithms, one module each. Adding one is one module and one line in the union."""

from rayrlhf.algorithms.ppo import PPO

Algorithm = PPO
"""The union of algorithms; a second one makes it `Annotated[A | B, Field(discriminator="kind")]`."""

__all__ = ["PPO", "Algorithm"]
