"""Model folders: checks of config, weights and tokenizer before any actor starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rayrlhf.config import UserError

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
PROBE = "안녕하세요, 저는 12살입니다.  It's a test:\n- one\tTwo"
"""Text whose tokens differ if a tokenizer was rebuilt as another kind."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class ModelFolderError(UserError):
    """A model folder is missing, incomplete or does not fit its tokenizer."""


def is_hub_name(model: str) -> bool:
    """Whether `model` is `owner/name` and not a folder here: transformers then looks it up on the model hub."""
    return bool(HUB_NAME.fullmatch(model)) and not Path(model).exists() and not model.startswith("runs/")


def read_model_config(model: str) -> Any:
    """The transformers configuration of `model` (a folder or a hub name).

    Raises ModelFolderError naming what is missing.
    """
    from transformers import AutoConfig

    if not is_hub_name(model):
        folder = Path(model)
        if not folder.is_dir():
            raise ModelFolderError(
                f"model {model!r}: no such folder; make one with `rayrlhf model init`, or name a trained model's"
            )
        if not (folder / "config.json").is_file():
            raise ModelFolderError(f"model {model!r}: the folder has no config.json, so it is not a model folder")
        if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
            raise ModelFolderError(f"model {model!r}: the folder has no weights (*.safetensors)")
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        missing = "no such folder, and as a hub name it" if is_hub_name(model) else "its configuration"
        raise ModelFolderError(f"model {model!r}: {missing} cannot be read: {first_line(error)}") from None


def skeleton(model: str) -> Any:
    """The causal language model of a folder or hub name on the meta device: names and shapes only."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(read_model_config(model))


def load_tokenizer(model: str, for_model: str | None = None) -> Any:
    """The tokenizer in `model`, checked against the vocabulary of the model `for_model` (by default the same).

    Raises ModelFolderError if there is none, if it has no eos token, or if it can produce ids without an embedding in
    the model.
    """
    from transformers import AutoTokenizer

    if not is_hub_name(model) and not any(
        (Path(model) / name).is_file()
        for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    ):
        raise ModelFolderError(
            f"model {model!r}: the folder has no tokenizer (tokenizer.json); "
            "copy the tokenizer files of its base model into it"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFolderError(f"model {model!r}: its tokenizer cannot be read: {first_line(error)}") from None
    _check_same_as_stored(model, tokenizer)
    if tokenizer.eos_token_id is None:
        raise ModelFolderError(f"model {model!r}: its tokenizer has no eos token, so no response could ever end")
    vocabulary = read_model_config(for_model or model).vocab_size
    if len(tokenizer) > vocabulary:
        raise ModelFolderError(
            f"model {for_model or model!r}: its vocabulary has {vocabulary} entries, but the tokenizer in {model!r} "
            f"has {len(tokenizer)}; use the tokenizer the model was trained with"
        )
    return tokenizer


def _check_same_as_stored(model: str, tokenizer: Any) -> None:
    """Raises ModelFolderError if the loaded tokenizer splits text differently from `tokenizer.json`.

    transformers chooses the tokenizer class by the model type and rebuilds the tokenizer, silently changing one of
    another kind: in a Qwen2 folder, KoGPT2's tokenizer turns Korean into single bytes.
    """
    from tokenizers import Tokenizer

    stored = Path(model) / "tokenizer.json"
    if not stored.is_file():
        return
    expected = Tokenizer.from_file(str(stored)).encode(PROBE, add_special_tokens=False).ids
    if expected != tokenizer(PROBE, add_special_tokens=False).input_ids:
        raise ModelFolderError(
            f"model {model!r}: transformers loads its tokenizer as {type(tokenizer).__name__}, because of the model "
            "type, which splits text differently from tokenizer.json; choose an architecture that keeps the tokenizer, "
            "for example llama"
        )


def check_same_vocabulary(first: str, second: str) -> None:
    """Raises ModelFolderError unless both models' tokenizers give the same ids: models exchange token ids, not text."""
    if first == second:
        return
    if load_tokenizer(first).get_vocab() != load_tokenizer(second).get_vocab():
        raise ModelFolderError(
            f"models {first!r} and {second!r} have different tokenizers; models exchange token ids, so "
            "all models of a run must share one vocabulary; only a reward model may have its own, with "
            "reward.source.retokenize=true"
        )


def first_line(error: Exception) -> str:
    """Of its message, or its type."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
