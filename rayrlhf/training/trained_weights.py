"""What the optimizer steps: a module's own trainable parameters, or float32 masters of bfloat16 ones."""

from __future__ import annotations

import torch
from torch import nn

from rayrlhf.training.parallel import unwrap


class TrainedWeights(nn.Module):
    """The trainable parameters of a distributed module, by name.

    With `masters` they are float32 copies (Micikevicius et al. 2018, section 3.1): an update smaller than a bfloat16
    weight can hold is kept there until the weight's next value is reached. Copies are sharded as their originals are.
    """

    def __init__(self, module: nn.Module, masters: bool) -> None:
        super().__init__()
        named = unwrap(module).named_parameters()
        self._originals = {name.replace(".", "/"): p for name, p in named if p.requires_grad}  # torch refuses dots
        self._masters = masters
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(p.detach().float()) if masters else p for name, p in self._originals.items()}
        )

    @property
    def masters(self) -> bool:
        """Whether these are copies."""
        return self._masters

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Add the originals' gradients to those of the masters, in float32, and clear them."""
        if not self._masters:
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
        if not self._masters:
            return
        for name, original in self._originals.items():
            original.copy_(self.weights[name])
