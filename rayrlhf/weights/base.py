"""What every weight transport has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rayrlhf.config import Config

if TYPE_CHECKING:
    import torch

    from rayrlhf.weights.buckets import Bucket


class WeightTransport(Config):
    """Settings of a transport, with its sender. The engine has a receiver for each `kind`."""

    kind: str

    @abstractmethod
    def pack(self, weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype | None) -> Iterator[Bucket]:
        """A learner's weights as the buckets that are published, in order.

        weights: (name, tensor) under the checkpoint's names. dtype: what floating-point tensors are cast to
        (`EngineSettings.wire_dtype`); None leaves them.
        """
