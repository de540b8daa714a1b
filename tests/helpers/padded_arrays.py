"""Ragged rollouts and shares as padded arrays, as a reader thinks of them."""

from dataclasses import replace

import numpy as np

from rayrlhf.types import Rollouts, RowShare, TrainBatch, offsets_of, pad_rows


def mask_of(rollouts: Rollouts) -> np.ndarray:
    """[B, T] bool, True on the tokens that are trained on."""
    return rollouts.padded(rollouts.loss_mask)


def tokens_of(rollouts: Rollouts) -> np.ndarray:
    """[B, T] int64."""
    return rollouts.padded(rollouts.tokens).astype(np.int64)


def padded_batch(batch: TrainBatch) -> TrainBatch:
    """The batch with its per-token arrays as [B, T], and those of states as [B, T + 1]."""
    names = ("old_logprobs", "advantages", "ref_logprobs", "values", "returns", "value_mask")
    arrays = {name: batch.rollouts.padded(array) for name in names if (array := getattr(batch, name)) is not None}
    return replace(batch, **arrays)


def in_order(share: RowShare) -> np.ndarray:
    """What a single rank computed, in the order of rows: [B], [B, T] or [B, T + 1]."""
    merged = RowShare.merge([share], len(share.rows))
    return merged if share.lengths is None else pad_rows(merged, offsets_of(share.lengths[np.argsort(share.rows)]))
