"""From a folder's weight files into a model: what they lack is found out, never made up."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from rayrlhf.models.folder import WEIGHT_FILES, ModelFolderError, first_line
from rayrlhf.models.quantized import loading

PROBE_TOKENS = 12


def load_model(
    auto_class: Any,
    folder: str,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    dropout: bool = False,
    may_lack: Iterable[str] = (),
    **settings: Any,
) -> tuple[Any, list[str]]:
    """A model of a Hugging Face folder or hub name, and the names of the weights that it lacks.

    On the CPU; in 4 bits, on the GPU. transformers fills what a checkpoint lacks with random numbers and says so in a
    log line: here only weights that begin with one of `may_lack` may be missing. Raises ModelFolderError for others,
    and for weights of another shape. dropout: keep the model's own; by default it has none, in training either.
    """
    stored_shapes(folder)
    try:
        model, found = auto_class.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **settings,
            **loading(load_in_4bit),
        )
    except OSError as error:  # a part that the index names, or all of a hub name
        raise ModelFolderError(f"model {folder!r}: its weights cannot be read: {error}") from None
    lacking = sorted(found["missing_keys"])
    unknown = [name for name in lacking if not name.startswith(tuple(may_lack))]
    if unknown:
        raise ModelFolderError(
            f"model {folder!r}: {len(unknown)} weights of {type(model).__name__} are not in the folder, for example "
            f"{unknown[0]!r}: name a folder whose weights are of this architecture, and complete"
        )
    if found["mismatched_keys"]:
        name, stored, wanted = min(found["mismatched_keys"])
        raise ModelFolderError(
            f"model {folder!r}: {name!r} has shape {list(stored)} in the folder, but {type(model).__name__} needs "
            f"{list(wanted)}: name a folder whose config.json is of its weights"
        )
    model.config.use_cache = False
    if not dropout:
        without_dropout(model)
    return model, lacking


def without_dropout(model: nn.Module) -> None:
    """Set every dropout rate of a Hugging Face model to 0; its configuration keeps them.

    A policy that drops units while it learns is another one than the policy whose log π_old is in the ratio.
    """
    configs: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _set_rates_to_zero(module)  # attention and layers take some as numbers
        config = getattr(module, "config", None)
        if config is not None and module is not model:  # and some from the configuration, in each forward pass
            if id(config) not in configs:
                configs[id(config)] = copy.deepcopy(config)
                _set_rates_to_zero(configs[id(config)])
            module.config = configs[id(config)]


@torch.no_grad()
def check_same_in_training(model: Any, name: str) -> None:
    """Raises ModelFolderError if the Hugging Face model `name` computes other states in training than in evaluation,
    as one does whose router adds noise: each ratio of new to old probabilities would have that noise in it."""
    was_training = model.training
    tokens = probe_tokens(model)
    trained, evaluated = (
        model.train(mode).base_model(input_ids=tokens, use_cache=False)[0].float() for mode in (True, False)
    )
    model.train(was_training)
    if (trained - evaluated).abs().max() <= 2 * torch.finfo(model.dtype).eps * evaluated.abs().max():
        return
    noise = [key for key, value in vars(model.config).items() if value and ("jitter" in key or "noise" in key)]
    fix = f"set {', '.join(noise)} to 0 in its config.json" if noise else "train a model of another type"
    raise ModelFolderError(
        f"model {name!r}: a {type(model).__name__} computes something else in training than in evaluation, without "
        f"dropout too, so no ratio of its probabilities would be right: {fix}"
    )


def probe_tokens(model: Any) -> torch.Tensor:
    """A row of tokens from all over the vocabulary, to try a model with: [1, PROBE_TOKENS]."""
    vocabulary = model.get_input_embeddings().num_embeddings
    return torch.linspace(0, vocabulary - 1, PROBE_TOKENS, device=model.device).long().unsqueeze(0)


def _set_rates_to_zero(owner: Any) -> None:
    for name, value in vars(owner).items():
        if "drop" in name and isinstance(value, float):
            setattr(owner, name, 0.0)


def stored_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in the weight files of a folder; only their headers are read where a file has one.

    Raises ModelFolderError for a file that cannot be read.
    """
    from safetensors import SafetensorError

    shapes: dict[str, tuple[int, ...]] = {}
    for pattern in WEIGHT_FILES:
        for file in sorted(Path(folder).glob(pattern)):
            try:
                shapes |= _shapes_in(file)
            except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
                raise ModelFolderError(
                    f"model {folder!r}: {file.name} cannot be read ({first_line(error)}): copy the file again; a small "
                    "one may be a Git LFS pointer, which `git lfs pull` replaces"
                ) from None
        if shapes:
            break
    return shapes


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    is_archive = zipfile.is_zipfile(file)  # before torch 1.6 files were pickles, which cannot be mapped
    tensors = torch.load(file, map_location="meta", weights_only=True, mmap=is_archive)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
