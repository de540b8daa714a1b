"""Whole weights as numpy buckets in Ray's object store: the default, and it works everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from rayrlhf.weights.base import WeightTransport

if TYPE_CHECKING:
    import torch

    from rayrlhf.weights.buckets import Bucket


class ObjectStore(WeightTransport):
    """Each version is put into the object store once; samplers map its buckets without a copy."""

    kind: Literal["object_store"] = "object_store"

    def pack(self, weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype | None = None) -> Iterator[Bucket]:
        from rayrlhf.weights.buckets import pack  # torch: not for those who only read settings

        return pack(weights, dtype)
