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
    retokenize: bool = False
    """Give the model text in its own tokens: for a reward model whose tokenizer is not the policy's."""
    template: Template | None = None
    """With `retokenize`: what is put around the prompt; null is nothing. The prompt is the policy's own, with what the
    data's template put around it."""

    @model_validator(mode="after")
    def _template_is_used(self) -> RewardModelReward:
        if self.template is not None and not self.retokenize:
            raise ValueError("template is for text: set retokenize=true with it")
        return self

    def resolved(self) -> Self:
        return self.model_copy(update={"model": resolve(self.model)})
