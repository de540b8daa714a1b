"""One module on several ranks: replicated (DDP) or sharded (FSDP2), on GPUs or, with gloo, on CPUs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

Sharding = Literal["ddp", "fsdp"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Ranks:
    """This process among those that work on the same module."""

    rank: int = 0
    world_size: int = 1
    joins: bool = True
    """Whether the ranks form a process group. Frozen scorers only split rows and need none."""

    @property
    def device(self) -> torch.device:
        """The GPU assigned to this process, else the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def join(self, address: str, port: int, timeout_s: float) -> None:
        """Join the process group at `address:port`, where rank 0 listens. Does nothing for a single rank."""
        if self.world_size == 1 or not self.joins:
            return
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
        dist.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=timeout_s),
        )


def distribute(module: nn.Module, sharding: Sharding, ranks: Ranks) -> nn.Module:
    """`module` on this rank's device, wrapped so that gradients are averaged over ranks (DDP, or FSDP2 shards)."""
    module = module.to(ranks.device)
    if ranks.world_size == 1:
        return module
    if sharding == "ddp":
        return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True, forward_sync_buffers=False)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in module.blocks():
        fully_shard(block, mesh=mesh)
    return fully_shard(module, mesh=mesh)


@contextlib.contextmanager
def gradient_sync(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, backward passes exchange gradients, or, if not `enabled`, only accumulate them on this rank."""
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(enabled)
        yield
    elif isinstance(module, nn.parallel.DistributedDataParallel) and not enabled:
        with module.no_sync():
            yield
    else:
        yield


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a DDP wrapper; FSDP2 does not wrap."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered from all ranks (a collective); any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """bfloat16 autocast if `precision` asks for it; `auto` uses it on GPUs that support it."""
    enabled = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
