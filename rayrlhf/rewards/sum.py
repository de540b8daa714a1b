"""Several rewards as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from rayrlhf.config import Config
from rayrlhf.rewards.base import BaseReward, Score
from rayrlhf.rewards.function import FunctionReward
from rayrlhf.rewards.http import HttpReward
from rayrlhf.rewards.names import check_names_differ
from rayrlhf.rewards.reward_model import RewardModelReward
from rayrlhf.rewards.rules import RulesReward

SingleReward = Annotated[RewardModelReward | FunctionReward | HttpReward | RulesReward, Field(discriminator="kind")]
"""All but sums: a sum of sums is one sum."""


class WeightedReward(Config):
    """One reward of a sum."""

    weight: FiniteFloat = 1.0
    source: SingleReward
    name: str = ""
    """What the part's own score is called in the metrics; empty is its kind."""

    @property
    def label(self) -> str:
        return self.name or self.source.kind


class SumReward(BaseReward):
    """Σ weight · score over the parts. A response that one part rejects is rejected."""

    kind: Literal["sum"] = "sum"
    parts: list[WeightedReward] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> SumReward:
        check_names_differ(self.part_names)
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        """Each part's own, then those of what it is made of: `rules`, `rules/numeric`."""
        return tuple(
            name
            for part in self.parts
            for name in (part.label, *(f"{part.label}/{inner}" for inner in part.source.part_names))
        )

    @property
    def scores_texts(self) -> bool:
        return any(part.source.scores_texts for part in self.parts)

    def resolved(self) -> Self:
        parts = [part.model_copy(update={"source": part.source.resolved()}) for part in self.parts]
        return self.model_copy(update={"parts": parts})

    def combine(self, results: Sequence[Score]) -> Score:
        """One response's results, one per part → the weighted sum, or the rejection of the first part that rejects."""
        scores: dict[str, float] = {}
        steps: list[tuple[int, float]] = []
        total = 0.0
        for part, result in zip(self.parts, results, strict=True):
            if result.value is None:
                return Score(None, f"{part.label}: {result.reason}", result.trace)
            total += part.weight * result.value
            scores[part.label] = result.value
            scores |= {f"{part.label}/{name}": score for name, score in result.parts.items()}
            steps += [(end, part.weight * score) for end, score in result.steps]
        return Score(total, parts=scores, steps=steps)
