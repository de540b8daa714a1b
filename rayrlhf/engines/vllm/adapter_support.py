"""What vLLM takes as adapters (`policy.lora.send: adapters`), and what has to be merged instead."""

from __future__ import annotations

from typing import Any

from rayrlhf.config import ConfigError
from rayrlhf.engines.base import Adapters

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's buffers for adapters can be laid out for; a smaller adapter is padded."""
FIX = "set policy.lora.send=merged"


def check_model(model_config: Any, adapters: Adapters, in_float32_on_gpu: bool) -> None:
    """Raises ConfigError if vLLM cannot take the adapters of a model with this configuration. Imports vLLM: seconds."""
    from vllm.model_executor.models.registry import ModelRegistry

    if adapters.rank > RANKS[-1]:
        raise ConfigError(
            f"policy.lora.rank is {adapters.rank}, and vLLM takes adapters up to rank {RANKS[-1]}: {FIX}, or lower "
            "policy.lora.rank"
        )
    if in_float32_on_gpu:
        raise ConfigError(
            "sampler.engine.dtype is float32, and vLLM's adapter kernels on a GPU compute in two-byte floats only: "
            f"{FIX}, or sampler.engine.dtype=auto"
        )
    architecture = (model_config.architectures or ["none"])[0]
    known = ModelRegistry.models.get(architecture)  # others run in transformers' own modules, which take adapters
    if known is not None and not getattr(known.load_model_cls(), "supports_lora", False):
        raise ConfigError(
            f"policy.lora.send is adapters, and vLLM takes none for models of architecture {architecture}: {FIX}"
        )


def check_layers(adapters: Adapters, adaptable: set[str]) -> None:
    """Raises ConfigError if an adapter would find no layer: only the loaded model (`adaptable_layers`) tells."""
    wanted = {layer.rpartition(".")[2] for layer in adapters.layers}
    if unplaced := sorted(wanted - adaptable):
        raise ConfigError(
            f"policy.lora.send is adapters, and vLLM takes none for the layers {', '.join(unplaced)} of this model: "
            f"{FIX}, or leave them out of policy.lora.target_modules"
        )


def adaptable_layers(worker: Any) -> set[str]:
    """Last parts of the checkpoint's names of all layers that the model of a vLLM worker can have adapters for."""
    manager = worker.model_runner.lora_manager._adapter_manager
    packed = manager.packed_modules_mapping
    return {name for module in manager.supported_lora_modules for name in packed.get(module, [module])}


def engine_settings(adapters: Adapters | None) -> dict[str, Any]:
    """What vLLM's `LLM` has to be told: room for one adapter, of the next rank that it knows."""
    if adapters is None:
        return {}
    rank = next(rank for rank in RANKS if rank >= adapters.rank)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
