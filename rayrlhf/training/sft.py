"""Supervised fine-tuning on one rank: cross-entropy on the answer's tokens, eos included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.functional import masked_sum
from rayrlhf.models import Policy
from rayrlhf.training.model_trainer import ModelTrainer, SupervisedTraining
from rayrlhf.training.offline_worker import OfflineWorker, gather_objects
from rayrlhf.training.parallel import Ranks


class SFTWorker(OfflineWorker):
    """Trains a policy to imitate answers. The loss is a token mean over the whole optimizer step."""

    prefix = "sft"

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        config: SupervisedTraining,
        train: Sequences,
        heldout: Sequences,
        total_steps: int,
        ranks: Ranks,
        train_on_prompt: bool = False,
    ) -> None:
        loaded = Policy.load(model, config.dtype, config.load_in_4bit, config.dropout)
        super().__init__(ModelTrainer(loaded, config, total_steps, ranks), tokenizer)
        self._train, self._heldout, self._train_on_prompt = train, heldout, train_on_prompt

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        num_tokens = int(trained_lengths(self._train, rows, self._train_on_prompt).sum())

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            loss = self._negative_logprob(self._train, rows[picked]) / num_tokens
            return loss, {"loss": loss}

        return self.optimizer_step(self._train.lengths_of(rows), loss_of)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        self.trainer.module.eval()
        total = 0.0
        for picked in self.trainer.plan(self._heldout.lengths):
            with self.trainer.autocast():
                loss = self._negative_logprob(self._heldout, np.array(picked or [0]))
            total += float(loss) if picked else 0.0
        total = sum(gather_objects(total, self.trainer.ranks.world_size))
        mean = total / trained_lengths(self._heldout, np.arange(len(self._heldout)), self._train_on_prompt).sum()
        return {"eval/loss": float(mean), "eval/perplexity": math.exp(min(mean, 700.0))}

    def before_save(self) -> None:
        """Nothing to add: the model is its weights."""

    def _negative_logprob(self, data: Sequences, rows: np.ndarray) -> Tensor:
        """−Σ log p over the trained tokens of `rows`."""
        tokens = self.to_device(data.padded(rows))
        mask = self.to_device(label_mask(data, rows, self._train_on_prompt))
        return -masked_sum(self.trainer.module(tokens, mask).logprobs, mask)


def label_mask(data: Sequences, rows: np.ndarray, train_on_prompt: bool) -> np.ndarray:
    """[B, T] bool, True on trained tokens. Follows from the prompt's length, never from token ids.

    The first token has no prefix to be predicted from and is never trained.
    """
    lengths = data.lengths_of(rows)
    positions = np.arange(int(lengths.max(initial=1)))
    first = np.ones(len(rows), dtype=np.int64) if train_on_prompt else data.prompt_lengths[rows].astype(np.int64)
    return (positions >= np.maximum(first, 1)[:, None]) & (positions < lengths[:, None])


def trained_lengths(data: Sequences, rows: np.ndarray, train_on_prompt: bool) -> np.ndarray:
    """[B] int64, trained tokens of each row: the row sums of `label_mask`."""
    first = np.ones(len(rows), dtype=np.int64) if train_on_prompt else np.maximum(data.prompt_lengths[rows], 1)
    return data.lengths_of(rows) - first
