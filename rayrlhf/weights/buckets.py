"""A model's weights as a few picklable buckets of numpy arrays, which the object store shares without a copy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BUCKET_BYTES = 256 * 2**20
"""Target size of a bucket: what sender and receiver hold in memory beside the model."""


@dataclass(frozen=True)
class Bucket:
    """Named tensors. numpy has no bfloat16, so two-byte floats travel as int16 beside the name of their dtype."""

    names: list[str]
    dtypes: list[str]  # as in torch, for example "bfloat16"
    arrays: list[np.ndarray]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) with the sender's dtypes. The tensors view the bucket's memory: read, never write them."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            for name, dtype, array in zip(self.names, self.dtypes, self.arrays, strict=True):
                yield name, torch.from_numpy(array).view(getattr(torch, dtype))


def pack(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> Iterator[Bucket]:
    """Buckets of about `BUCKET_BYTES`, in order; floating-point tensors are cast to `dtype` if one is given."""
    bucket, size = Bucket([], [], []), 0
    for name, tensor in weights:
        tensor = tensor.detach()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensor = tensor.cpu().contiguous()
        bucket.names.append(name)
        bucket.dtypes.append(str(tensor.dtype).removeprefix("torch."))
        carrier = tensor.view(torch.int16) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
        bucket.arrays.append(carrier.numpy())
        size += carrier.nbytes
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = Bucket([], [], []), 0
    if bucket.names:
        yield bucket
