"""Low-rank adapters (LoRA, Hu et al. 2021): beside each chosen linear layer W a trained α/r·B·A, W itself frozen.

The adapters are injected by peft into the Hugging Face model in place. Samplers and
folders get merged weights W + α/r·B·A under the model's own names, or A and B alone; the module in training is never
merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from rayrlhf.config import Config, ConfigError
from rayrlhf.models.folder import skeleton
from rayrlhf.models.quantized import dequantized

ALL_LINEAR = "all-linear"
ADAPTER = "default"
BASE = ".base_layer"
PEFT_PREFIX = "base_model.model."
"""peft's prefix of the model's own names."""
HEAD = "score"
"""The head of scalar models. It is new, so it is trained in full beside the adapters."""


class LoraConfig(Config):
    """Train low-rank adapters (Hu et al. 2021) instead of all weights."""

    rank: PositiveInt = 8
    """Columns of B and rows of A."""
    alpha: PositiveFloat = 16.0
    """B·A is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the adapters' inputs, in training only."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """`all-linear`: every linear layer except the output head; or suffixes of names, for example [q_proj, v_proj]."""

    load_in_4bit: bool = False
    """Keep the frozen linear layers in 4 bits (NF4) and compute in bfloat16: an eighth of their float32 memory. CUDA
    and bitsandbytes only."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_are_a_list(cls, targets: Any) -> Any:
        is_list = isinstance(targets, list | tuple) and targets and all(isinstance(name, str) for name in targets)
        if targets != ALL_LINEAR and not is_list:
            raise ValueError(f"set {ALL_LINEAR}, or a list of suffixes of layer names, such as [q_proj, v_proj]")
        return targets


def check_lora(model: str, config: LoraConfig, field: str = "training.lora") -> None:
    """Raises ConfigError if a target matches no linear layer of `model` (a folder or hub name). Loads no weights."""
    empty = skeleton(model)
    known = linear_names(empty)
    wanted = () if config.target_modules == ALL_LINEAR else config.target_modules
    unmatched = [target for target in wanted if not any(_matches(name, target) for name in known)]
    if unmatched or not known:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in known})) or "none"
        raise ConfigError(
            f"{field}.target_modules: {', '.join(unmatched) or config.target_modules} matches no linear layer of model "
            f"{model!r}; linear layers there: {there}"
        )


def linear_names(model: Any) -> list[str]:
    """Names of the layers that can have an adapter: all linear ones but the output head and the scalar head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and name != HEAD
    ]


def target_names(model: Any, config: LoraConfig) -> list[str]:
    """Names of the layers that `config` gives an adapter."""
    names = linear_names(model)
    if config.target_modules == ALL_LINEAR:
        return names
    return [name for name in names if any(_matches(name, target) for target in config.target_modules)]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def add_adapters(model: Any, config: LoraConfig) -> None:
    """Freeze `model`, a Hugging Face model, and give it adapters in place; a scalar head stays trainable.

    B starts at zero, so the model computes what it did before. A has a fixed seed: it is the same on every rank.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    scalar = isinstance(getattr(model, HEAD, None), nn.Module)
    targets = target_names(model, config)
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        fan_in_fan_out=not any(isinstance(model.get_submodule(name), nn.Linear) for name in targets),
        base_model_name_or_path=model.name_or_path,
        task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inject_adapter_in_model(settings, model, ADAPTER)
    if scalar:
        getattr(model, HEAD).requires_grad_(True)


def trained_share(model: str, config: LoraConfig) -> float:
    """Adapter parameters of `model` (a folder or hub name), as a share of its own parameters."""
    empty = skeleton(model)
    sizes = (sum(empty.get_submodule(name).weight.shape) for name in target_names(empty, config))
    return config.rank * sum(sizes) / sum(parameter.numel() for parameter in empty.parameters())


def linear_share(model: str) -> float:
    """Weights of the layers that can have an adapter, as a share of the parameters of `model` (folder or hub name)."""
    empty = skeleton(model)
    linear = sum(empty.get_submodule(name).weight.numel() for name in linear_names(empty))
    return linear / sum(parameter.numel() for parameter in empty.parameters())


def merged(
    model: Any, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """`tensors` of `model` (its parameters or its state) under its plain names, each W with its α/r·B·A added.

    One layer at a time, as new tensors. `whole` gathers a sharded tensor: a collective, called for the same tensors in
    the same order on each rank. The sum is computed in float32 and rounded to W's dtype; a 4-bit W is unpacked first.
    Without adapters the tensors are those given.
    """
    for name, tensor in dequantized(model, tensors):
        if _is_adapter(name):
            continue
        layer, is_base, kind = name.rpartition(f"{BASE}.")
        if not is_base:
            yield name, whole(tensor)
        elif kind != "weight":
            yield f"{layer}.{kind}", whole(tensor)
        else:
            down, up = (whole(tensors[f"{layer}.lora_{part}.{ADAPTER}.weight"]).detach() for part in ("A", "B"))
            adapted = model.get_submodule(layer)
            change = adapted.scaling[ADAPTER] * (up.float() @ down.float())  # [out, in]
            weight = whole(tensor).detach()
            change = change.T if adapted.fan_in_fan_out else change
            yield f"{layer}.weight", (weight.float() + change).to(weight.dtype)


def adapter_tensors(
    tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Iterator[tuple[str, Tensor]]:
    """A [r, in] and B [out, r] of each adapted layer in `tensors`: `<layer>.lora_A.weight`, `<layer>.lora_B.weight`.

    `whole` gathers a sharded tensor: a collective, called for the same tensors in the same order on each rank.
    """
    for name, tensor in tensors.items():
        if _is_adapter(name):
            yield name.replace(f".{ADAPTER}.", "."), whole(tensor)


def save_adapter(model: Any, folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write the trained tensors of `model` in peft's format, if it has adapters; `state` holds its full tensors.

    peft loads the folder onto the base model that adapter_config.json names, a scalar head included.
    """
    from safetensors.torch import save_file

    settings = getattr(model, "peft_config", {}).get(ADAPTER)
    if settings is None:
        return
    from peft import LoraConfig as PeftConfig

    written = PeftConfig(**settings.to_dict())
    written.inference_mode = True
    if any(name.startswith(f"{HEAD}.") for name in state):
        written.modules_to_save = [HEAD]
    folder.mkdir(parents=True, exist_ok=True)
    written.save_pretrained(folder)
    head = {name: tensor for name, tensor in state.items() if name.startswith(f"{HEAD}.")}
    trained = {
        f"{PEFT_PREFIX}{name}": tensor.contiguous() for name, tensor in (dict(adapter_tensors(state)) | head).items()
    }
    save_file(trained, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
