"""Exponential moving average of the trained weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rayrlhf.training.trained_weights import TrainedWeights


class WeightAverage:
    """θ_avg ← decay · θ_avg + (1 − decay) · θ over the trained parameters, in float32, sharded like them.

    Of bfloat16 parameters it averages the float32 masters, in which small updates are not lost.
    """

    def __init__(self, trained: TrainedWeights, decay: float) -> None:
        self._decay = decay
        self._trained = trained
        self._parameters = list(trained.parameters())
        self._average = [parameter.detach().float().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Call after each optimizer step."""
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach().float(), 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this context the module holds the averaged weights."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self._copy_in(self._average)
        try:
            yield
        finally:
            self._copy_in(own)

    @torch.no_grad()
    def _copy_in(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
        self._trained.write_back()
