"""Optimizers, one class each with its settings, and the learning-rate schedule that they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from rayrlhf.config import Config, short_form

Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Config, ABC):
    """What optimizers have in common: the rate and its schedule, weight decay and the clip of gradients."""

    state_bytes: ClassVar[float]
    """What it keeps for each trained parameter."""
    shards: ClassVar[bool] = True
    """Whether it takes FSDP2's shards."""
    needs_cuda: ClassVar[bool] = False
    """Whether it runs on CUDA only, with bitsandbytes."""

    kind: str
    learning_rate: PositiveFloat = 1e-5
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat | None = 1.0
    """Clip the global gradient norm to this; null does not clip."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, or decaying to `min_learning_rate_ratio` at the last step."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps over which the rate rises linearly from near 0."""
    min_learning_rate_ratio: float = Field(default=0.0, ge=0, le=1)

    @abstractmethod
    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""

    def rate_factor(self, step: int, total_steps: int) -> float:
        """Multiplier of the learning rate at optimizer step `step` (0-based) of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        decay = {
            "constant": 1.0,
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        }[self.schedule]
        return self.min_learning_rate_ratio + (1 - self.min_learning_rate_ratio) * decay


class _Adam(Optimizer):
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8


class AdamW(_Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    state_bytes: ClassVar[float] = 8  # two moments in float32

    kind: Literal["adamw"] = "adamw"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=self.learning_rate, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )


class Adafactor(Optimizer):
    """Steps relative to each weight's size, by second moments of rows and columns, without a first moment (Shazeer and
    Stern 2018, algorithm 4). It is torch's; see there how its small constants differ from the paper."""

    state_bytes: ClassVar[float] = 0  # a number for each row and column
    shards: ClassVar[bool] = False

    kind: Literal["adafactor"] = "adafactor"
    learning_rate: PositiveFloat = 1e-2
    """The largest relative step: a weight matrix of root mean square r moves by r times this at most, and by
    r / √step if that is less (section 8)."""
    beta2_decay: float = Field(default=-0.8, lt=0)
    """The second moments' rate is 1 − step^beta2_decay (section 7.2)."""
    update_clip: float = Field(default=1.0, ge=1)
    """Largest root mean square of a weight's update before it is scaled (section 6)."""

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(
            parameters,
            lr=self.learning_rate,
            beta2_decay=self.beta2_decay,
            d=self.update_clip,
            weight_decay=self.weight_decay,
        )


class AdamW8bit(_Adam):
    """AdamW whose moments are kept in 8 bits, in blocks (Dettmers et al. 2022), on CUDA with bitsandbytes."""

    state_bytes: ClassVar[float] = 2.03  # and a float32 scale for each block of 256
    shards: ClassVar[bool] = False
    needs_cuda: ClassVar[bool] = True

    kind: Literal["adamw_8bit"] = "adamw_8bit"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(
            parameters, lr=self.learning_rate, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
        return optimizer


AnyOptimizer = Annotated[
    Annotated[AdamW | Adafactor | AdamW8bit, Field(discriminator="kind")], short_form(kind="adamw")
]
"""`adafactor` is short for `{kind: adafactor}`; without a kind it is AdamW."""
