"""Forward passes over a step's rollouts, split over ranks by one plan; scorers and learners use them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import Rollouts, RowShare, unpad_rows

RowPass = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(tokens [b, t], loss mask [b, t], lengths [b]) → [b], [b, t] or, of states, [b, t + 1]."""


@torch.no_grad()
def forward_rows(
    rollouts: Rollouts,
    ranks: Ranks,
    max_tokens: int,
    autocast: AbstractContextManager[Any],
    row_pass: RowPass,
) -> RowShare:
    """Run `row_pass` over this rank's share of the rollouts, in micro-batches of `max_tokens` padded tokens."""
    plan = plan_microbatches(rollouts.lengths, max_tokens, ranks.world_size)[ranks.rank]
    rows: list[int] = []
    results: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    with autocast:
        for microbatch in plan:
            # A rank without rows still runs a pass: a sharded model gathers its layers in every one.
            tokens, mask, row_lengths = row_tensors(rollouts, np.array(microbatch or [0]), ranks.device)
            result = row_pass(tokens, mask, row_lengths).float().cpu().numpy()
            if not microbatch:
                continue
            rows.extend(microbatch)
            if result.ndim == 2:
                extra = result.shape[1] - tokens.shape[1]  # T tokens have T + 1 states
                lengths.append(row_lengths.cpu().numpy() + extra)
                result = unpad_rows(result, lengths[-1])
            results.append(result)
    return RowShare(
        np.array(rows, dtype=np.int64),
        np.concatenate(results) if results else np.zeros(0, dtype=np.float32),
        np.concatenate(lengths) if lengths else None,
    )


def row_tensors(rollouts: Rollouts, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens [b, t] int64, loss mask [b, t], lengths [b]) of `rows`, padded to the longest of them."""
    tokens = torch.from_numpy(rollouts.padded(rollouts.tokens, rows).astype(np.int64))
    mask = torch.from_numpy(rollouts.padded(rollouts.loss_mask, rows))
    return tokens.to(device), mask.to(device), torch.from_numpy(rollouts.lengths[rows]).to(device)
