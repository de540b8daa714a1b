"""The parameters that the optimizer updates: a module's own, or float32 masters of bfloat16 ones."""

from __future__ import annotations

import torch
from torch import nn

from rayrlhf.training.parallel import unwrap


class TrainedWeights(nn.Module):
    """The trainable parameters of a distributed module, by name.

    With `masters` they are float32 copies (Micikevicius et al. 2018, section 3.1), which accumulate updates too small
    for a bfloat16 weight. Copies are sharded like their originals.
    """

    def __init__(self, module: nn.Module, masters: bool) -> None:
        super().__init__()
        named = unwrap(module).named_parameters()
        self._originals = {name.replace(".", "/"): p for name, p in named if p.requires_grad}  # torch refuses dots
        self.masters = masters
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(p.detach().float()) if masters else p for name, p in self._originals.items()}
        )

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Add the originals' gradients to those of the masters, in float32, and clear them."""
        if not self.masters:
            return
        for name, original in self._originals.items():
            master = self.weights[name]
            if original.grad is not None:
                gradient = original.grad.float()
                master.grad = gradient if master.grad is None else master.grad + gradient
                original.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the module."""
        if not self.masters:
            return
        for name, original in self._originals.items():
            original.copy_(self.weights[name])
