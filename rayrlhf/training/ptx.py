"""PPO-ptx (Ouyang et al. 2022, section 3.5, eq. 2): a language-model loss in each of the policy's optimizer steps.

Deviation: the paper uses pretraining texts. Here the rows are prompts with answers, and the answers are trained, as in
SFT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.functional import masked_sum
from rayrlhf.training.sft import label_mask, trained_lengths


class PtxMix:
    """`batch_size` SFT rows for each optimizer step, in a seeded order."""

    def __init__(self, data: Sequences, coef: float, batch_size: int, seed: int) -> None:
        self._data, self._coef, self._seed = data, coef, seed
        self._batch_size = min(batch_size, len(data))
        self._steps = 0

    def next_rows(self) -> np.ndarray:
        """The rows of the next optimizer step, the same on every rank."""
        rows = np.random.default_rng([self._seed, self._steps]).choice(len(self._data), self._batch_size, replace=False)
        self._steps += 1
        return rows

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """[b], tokens of each row."""
        return self._data.lengths_of(rows)

    def loss(self, policy: Any, picked: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
        """coef · −log p of the answers in micro-batch `picked`, divided by the trained tokens of the step's `rows`."""
        tokens = torch.from_numpy(self._data.padded(picked)).to(device)
        mask = torch.from_numpy(label_mask(self._data, picked, train_on_prompt=False)).to(device)
        logprobs = policy(tokens, mask).logprobs
        num_tokens = int(trained_lengths(self._data, rows, train_on_prompt=False).sum())
        return -self._coef * masked_sum(logprobs, mask) / num_tokens
