"""A language model with a scalar head: the reward model, and the critic that starts from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.models.checkpoint import load_model, stored_shapes
from rayrlhf.models.folder import ModelFolderError, is_hub_name, read_model_config
from rayrlhf.models.lora import HEAD
from rayrlhf.models.policy import save_folder, transformer_blocks
from rayrlhf.types import Pooling


@dataclass(frozen=True)
class RewardStatistics:
    """Mean and standard deviation of a reward model's scores on its training answers, in raw score units."""

    mean: float = 0.0
    std: float = 1.0

    def normalize(self, scores: Tensor) -> Tensor:
        """(scores − mean) / std, so that rewards of different models have the same scale."""
        return (scores - self.mean) / self.std


class ScalarModel(nn.Module):
    """One number per token from a Hugging Face sequence-classification model with a single label.

    Reward models trained elsewhere load too (`AutoModelForSequenceClassification`).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        getattr(model, HEAD).float()

    @classmethod
    def load(
        cls,
        folder: str,
        dtype: torch.dtype = torch.float32,
        load_in_4bit: bool = False,
        dropout: bool = False,
        needs_head: bool = False,
    ) -> ScalarModel:
        """From a reward model's folder, or from a language model's with a new zero head, which `needs_head` refuses.

        On the CPU; in 4 bits, on the GPU. The head is never packed. Raises ModelFolderError.
        """
        from transformers import AutoModelForSequenceClassification

        check_scalar_type(folder)
        model, lacking = load_model(
            AutoModelForSequenceClassification,
            folder,
            dtype,
            load_in_4bit,
            dropout,
            may_lack=(f"{HEAD}.",),
            num_labels=1,
        )
        if lacking and needs_head:
            raise _has_no_head(folder)
        with torch.no_grad():
            for name in lacking:
                model.get_parameter(name).zero_()
        return cls(model)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T], right-padded → the head's output after reading token t: [B, T] float32, also where the
        transformer computes in bfloat16: rounded to its 8 bits, close scores would be equal."""
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            outputs: Tensor = self.model.score(hidden.float()).squeeze(-1)
        return outputs

    def values(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """V(state before token t): the head's output after token t − 1. [B, T], 0 outside `mask` ([B, T] bool)."""
        return shift_to_states(self(tokens), mask)

    def scores(self, tokens: Tensor, lengths: Tensor, pooling: Pooling = "last") -> Tensor:
        """One raw score per sequence. tokens: [B, T]; lengths: [B] real tokens; returns [B]."""
        return pool_scores(self(tokens), lengths, pooling)

    @property
    def statistics(self) -> RewardStatistics:
        """The score statistics in the model's configuration; mean 0 and standard deviation 1 if there are none."""
        return _stored_statistics(self.model.config, self.model.config.name_or_path)

    @statistics.setter
    def statistics(self, statistics: RewardStatistics) -> None:
        self.model.config.reward_statistics = {"mean": statistics.mean, "std": statistics.std}

    def blocks(self) -> list[nn.Module]:
        """The transformer layers and the head, the units of sharding: each has weights of one dtype."""
        return [*transformer_blocks(self.model), self.model.score]

    def save(self, folder: Path, tokenizer: Any, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a Hugging Face folder, score statistics included."""
        self.model.config.pad_token_id = tokenizer.pad_token_id
        save_folder(self.model, folder, tokenizer, state_dict)


def check_scalar_type(model: str) -> None:
    """Raises ModelFolderError if `model`, a folder or hub name, is of a type that cannot have a scalar head, or if its
    configuration holds score statistics that cannot be used."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = read_model_config(model)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelFolderError(
            f"model {model!r}: transformers has no sequence-classification model of type {config.model_type!r}, which "
            "a reward model and a critic are: name a model of another type, or choose an algorithm without a critic"
        )
    _stored_statistics(config, model)


def _stored_statistics(config: Any, model: str) -> RewardStatistics:
    """The score statistics in a model's configuration, by default mean 0 and standard deviation 1."""
    stored = getattr(config, "reward_statistics", None)
    if stored is None:
        return RewardStatistics()
    if isinstance(stored, dict) and stored.keys() == {"mean", "std"}:
        mean, std = stored["mean"], stored["std"]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in (mean, std)) and std > 0:
            return RewardStatistics(mean, std)
    raise ModelFolderError(
        f'model {model!r}: reward_statistics in its config.json is {stored!r}, and must be {{"mean": …, "std": …}}'
        ", two finite numbers of which std is above 0: correct it, or remove it, which leaves scores as they are"
    )


def check_reward_model(model: str) -> None:
    """Raises ModelFolderError unless `model`, a folder, is a sequence-classification model with a trained head of one
    output. Reads no weights. A hub name is looked at when it is loaded."""
    check_scalar_type(model)
    if is_hub_name(model):
        return
    head = stored_shapes(model).get(f"{HEAD}.weight")
    if head is None:
        raise _has_no_head(model)
    if head[0] != 1:
        raise ModelFolderError(
            f"model {model!r}: its head gives {head[0]} numbers, and a reward model's gives one: name a model that was "
            "trained with num_labels=1"
        )


def _has_no_head(model: str) -> ModelFolderError:
    return ModelFolderError(
        f"model {model!r}: there is no trained scalar head ({HEAD}.weight) in the folder, so it is no reward model: "
        "name what `rayrlhf train` with stage reward_model wrote, or another sequence-classification model"
    )


def shift_to_states(outputs: Tensor, mask: Tensor) -> Tensor:
    """Head outputs after token t, [B, T] → values before token t, 0 outside `mask`."""
    before = torch.nn.functional.pad(outputs[:, :-1], (1, 0))
    return torch.where(mask.bool(), before, torch.zeros_like(before))


def pool_scores(outputs: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Per-token outputs [B, T] → one score per sequence [B]: at the last real token, or the mean over real tokens."""
    if pooling == "last":
        return outputs.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)
    real = torch.arange(outputs.shape[1], device=outputs.device) < lengths.unsqueeze(1)
    return torch.where(real, outputs, torch.zeros_like(outputs)).sum(1) / lengths
