"""Settings of a vLLM engine, and what they mean to the rest of the program. vLLM itself is imported late: seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt

from rayrlhf.config import ConfigError
from rayrlhf.engines.base import Adapters, EngineInputs, EngineSettings
from rayrlhf.engines.vllm.adapter_support import check_model

if TYPE_CHECKING:
    import torch

    from rayrlhf.engines.vllm.engine import VllmEngine

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM's CPU kernels are built for."""


class VllmEngineConfig(EngineSettings):
    """Settings of one vLLM engine."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is float32 on CPU, where it makes sampler and learner agree, and bfloat16 on CUDA."""
    max_num_seqs: PositiveInt = 64
    """Responses generated at the same time."""
    kv_cache_gib: PositiveFloat = 1.0
    """Memory of the key-value cache in GiB, on CPU. It bounds the engine together with the weights."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    """Share of the GPU's memory that the engine may use, on CUDA."""
    enforce_eager: bool = True
    """Skip graph capture and compilation: a faster start; on CPU compiled and eager speed are the same."""
    batch_invariant: bool = False
    """On CUDA, sample with kernels whose result does not depend on what runs beside a response. Slower; on a CPU it
    does not depend on that anyway."""
    prefix_caching: bool = True
    """Share the key-value cache of equal prompt beginnings. It never serves across weight versions."""

    @classmethod
    def of(cls, num_slots: int, dtype: Literal["auto", "float32", "bfloat16"]) -> Self:
        return cls(max_num_seqs=num_slots, dtype=dtype)

    @property
    def num_slots(self) -> int:
        return self.max_num_seqs

    @property
    def memory_bytes(self) -> int:
        return int(self.kv_cache_gib * 2**30)

    def kept_dtype(self, on_gpu: bool) -> Literal["float32", "bfloat16", "float16"]:
        """What the engine keeps its weights in."""
        if self.dtype == "auto":
            return "bfloat16" if on_gpu else "float32"
        return self.dtype

    def wire_dtype(self, on_gpu: bool) -> torch.dtype | None:
        import torch

        kept = self.kept_dtype(on_gpu)
        return None if kept == "float32" else getattr(torch, kept)

    def samples_exactly(self, on_gpu: bool) -> bool:
        return not on_gpu and self.kept_dtype(on_gpu) == "float32"

    def environment(self) -> dict[str, str]:
        invariant = {"VLLM_BATCH_INVARIANT": "1"} if self.batch_invariant else {}
        return invariant | {
            # Several engines share a machine's cores with the learners: the scheduler places threads better.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }

    def check(self, model_config: Any, on_gpu: bool, adapters: Adapters | None = None) -> None:
        if self.batch_invariant and not on_gpu:
            raise ConfigError(
                "sampler.engine.batch_invariant is true, which is for CUDA, but sampler.num_gpus is 0: leave it out "
                "(on a CPU what runs beside a response never changes it), or set sampler.num_gpus=1"
            )
        heads = model_config.num_attention_heads
        size = getattr(model_config, "head_dim", None) or model_config.hidden_size // heads
        if not on_gpu and size not in CPU_HEAD_SIZES:
            raise ConfigError(
                f"the model has attention heads of {size} ({heads} of them); on a CPU, vLLM takes heads of "
                f"{', '.join(map(str, CPU_HEAD_SIZES))}: choose hidden_size and num_heads so that "
                "hidden_size / num_heads is one of these"
            )
        if adapters is not None:
            be_quiet()
            check_model(model_config, adapters, in_float32_on_gpu=on_gpu and self.dtype == "float32")

    def start(self, inputs: EngineInputs) -> VllmEngine:
        from rayrlhf.engines.vllm.engine import VllmEngine

        return VllmEngine(self, inputs)


def be_quiet() -> None:
    """Before vLLM is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
