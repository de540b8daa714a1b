"""The reward of a trained reward model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from rayrlhf.data.templates import Template
from rayrlhf.rewards.base import BaseReward
from rayrlhf.run_directory import resolve
from rayrlhf.types import Pooling


class RewardModelReward(BaseReward):
    """r(x, y) = the scalar head's output after the last token."""

    kind: Literal["reward_model"] = "reward_model"
    model: str
    """Folder (or hub name) of a sequence-classification model with one label."""
    pooling: Pooling = "last"
    normalize: bool = True
    """Subtract the mean and divide by the standard deviation that training stored in the folder."""
    step_end: str | None = None
    """A process reward model: what the head gives where a step of the response ends, as with "\\n\\n", is that step's
    score, and the response's is their sum. The end of the response ends a step too. Null is one score for it all."""
    retokenize: bool = False
    """Give the model text in its own tokens: for a reward model whose tokenizer is not the policy's."""
    template: Template | None = None
    """With `retokenize`: what is put around the prompt; null is nothing. The prompt is the policy's own, with what the
    data's template put around it."""

    @model_validator(mode="after")
    def _steps_end_somewhere(self) -> RewardModelReward:
        if self.step_end == "":
            raise ValueError("step_end is empty: write the text that ends a step, or leave it out")
        if self.step_end is not None and self.pooling != "last":
            raise ValueError("step_end reads the head where steps end: set pooling=last with it")
        return self

    @model_validator(mode="after")
    def _template_is_used(self) -> RewardModelReward:
        if self.template is not None and not self.retokenize:
            raise ValueError("template is for text: set retokenize=true with it")
        return self

    def resolved(self) -> Self:
        return self.model_copy(update={"model": resolve(self.model)})
