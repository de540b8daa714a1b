"""A language model with a scalar head: the reward model, and the critic that starts from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.models.policy import save_folder, transformer_blocks
from rayrlhf.models.quantized import loading
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

    @classmethod
    def load(cls, folder: str, dtype: torch.dtype = torch.float32, load_in_4bit: bool = False) -> ScalarModel:
        """From a reward model's folder, or from a language model's with a new zero head.

        On the CPU; in 4 bits, on the GPU. The head is never packed.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.from_pretrained(folder)
        trained = any("SequenceClassification" in name for name in config.architectures or [])
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, num_labels=1, **loading(load_in_4bit)
        )
        model.config.use_cache = False
        if not trained:
            nn.init.zeros_(model.score.weight)
        return cls(model)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T], right-padded → the head's output after reading token t: [B, T] float32."""
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return self.model.score(hidden).squeeze(-1).float()

    def values(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """V(state before token t): the head's output after token t − 1. [B, T], 0 outside `mask` ([B, T] bool)."""
        return shift_to_states(self(tokens), mask)

    def scores(self, tokens: Tensor, lengths: Tensor, pooling: Pooling = "last") -> Tensor:
        """One raw score per sequence. tokens: [B, T]; lengths: [B] real tokens; returns [B]."""
        return pool_scores(self(tokens), lengths, pooling)

    @property
    def statistics(self) -> RewardStatistics:
        """The score statistics in the model's configuration; mean 0 and standard deviation 1 if there are none."""
        stored = getattr(self.model.config, "reward_statistics", None) or {}
        return RewardStatistics(**stored)

    @statistics.setter
    def statistics(self, statistics: RewardStatistics) -> None:
        self.model.config.reward_statistics = {"mean": statistics.mean, "std": statistics.std}

    def blocks(self) -> list[nn.Module]:
        """The transformer layers, the units of sharding."""
        return transformer_blocks(self.model)

    def save(self, folder: Path, tokenizer: Any, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a Hugging Face folder, score statistics included."""
        self.model.config.pad_token_id = tokenizer.pad_token_id
        save_folder(self.model, folder, tokenizer, state_dict)


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
