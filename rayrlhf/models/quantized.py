"""Frozen weights in 4 bits under adapters: NF4 with double quantization (Dettmers et al. 2023, section 3), on CUDA.

bitsandbytes packs every linear layer except the heads while loading. Samplers and folders get unpacked weights, in the
dtype that the model was loaded in.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rayrlhf.config import ConfigError
from rayrlhf.models.folder import skeleton


def loading(load_in_4bit: bool) -> dict[str, Any]:
    """Arguments for transformers' `from_pretrained`."""
    if not load_in_4bit:
        return {}
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings}


def check_4bit(model: str, field: str, num_gpus: float, gpus_field: str) -> None:
    """Raises ConfigError if workers that reserve `num_gpus` each cannot load `model` in 4 bits, as `field` asks."""
    from transformers.pytorch_utils import Conv1D

    check_bitsandbytes(f"{field}.load_in_4bit is true", f"{field}.load_in_4bit=false", num_gpus, gpus_field)
    if any(isinstance(module, Conv1D) for module in skeleton(model).modules()):
        raise ConfigError(
            f"{field}.load_in_4bit is true, but model {model!r} keeps its weights transposed (Conv1D), which "
            f"cannot be merged from 4 bits: set {field}.load_in_4bit=false"
        )


def check_bitsandbytes(setting: str, instead: str, num_gpus: float, gpus_field: str) -> None:
    """Raises ConfigError if workers that reserve `num_gpus` each cannot use bitsandbytes, as `setting` asks."""
    if num_gpus == 0:
        raise ConfigError(f"{setting}, which needs CUDA, but {gpus_field} is 0: set {gpus_field}=1, or {instead}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{setting}, which needs bitsandbytes, but it is not installed: install the CUDA requirements "
            f"(make install KIND=cuda), or set {instead}"
        )


def dequantized(model: Any, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """`tensors` of `model` (its parameters or its state), packed weights unpacked one at a time.

    The quantizer's own entries next to a packed weight are left out; all other tensors are those given.
    """
    packed = {name for name, module in model.named_modules() if _is_packed(module)}
    for name, tensor in tensors.items():
        layer = name.rpartition(".weight")[0]
        if layer not in packed:
            yield name, tensor
        elif name == f"{layer}.weight":
            from peft.utils.integrations import dequantize_module_weight

            yield name, dequantize_module_weight(model.get_submodule(layer)).to(tensor.device)


def writable(model: Any) -> Any:
    """`model`, or, if it is packed, an empty model of its kind: transformers saves that one packed."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    return empty_of(model, config)


def empty_of(model: Any, config: Any) -> Any:
    """A model of the same class and dtype on the meta device: names and settings only."""
    with torch.device("meta"):
        empty = type(model)(config).to(model.dtype)
    if model.can_generate():
        empty.generation_config = model.generation_config
    return empty


def _is_packed(module: Any) -> bool:
    # Not `module.weight`, which an adapter layer forwards to its base layer.
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return type(weight).__name__ == "Params4bit"
