"""What crosses an actor boundary. Shapes stand beside the fields: B rollouts, N tokens in all of them.

Rollouts are ragged between actors: per-token arrays are flat, [N], and row b is `array[offsets[b]:offsets[b + 1]]`.
Only a micro-batch, and the credit assigner's whole-step view, pad rows to [B, T].

One alignment holds everywhere: index t speaks about token t. `logprobs[b, t]` is log p(tokens[b, t] | tokens[b, :t]),
`values[b, t]` is V(state before token t), `rewards[b, t]` is what token t earned. `loss_mask` is stored and says which
tokens are trained on; entries outside it are 0.

Arrays are numpy so that Ray's object store shares them without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np

FloatArray = np.ndarray
IntArray = np.ndarray
BoolArray = np.ndarray

Pooling = Literal["last", "mean"]
"""How a scalar head's outputs become one score: that of the last token, or the mean over all."""


def pad_rows(flat: np.ndarray, offsets: IntArray, rows: IntArray | None = None, width: int | None = None) -> np.ndarray:
    """[N] → [b, width]: the given rows (all by default), right-padded with 0 to `width` (their longest by default)."""
    rows = np.arange(len(offsets) - 1) if rows is None else np.asarray(rows)
    lengths = offsets[rows + 1] - offsets[rows]
    width = int(lengths.max(initial=0)) if width is None else width
    padded = np.zeros((len(rows), width), dtype=flat.dtype)
    padded[np.arange(width) < lengths[:, None]] = flat[row_indices(offsets, rows)]
    return padded


def unpad_rows(padded: np.ndarray, lengths: IntArray) -> np.ndarray:
    """[b, T] → [N]: the first `lengths[i]` entries of each row i, end to end."""
    flat: np.ndarray = padded[np.arange(padded.shape[1]) < np.asarray(lengths)[:, None]]
    return flat


def row_indices(offsets: IntArray, rows: IntArray) -> IntArray:
    """Where the entries of the given rows lie in a flat array, row after row."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    ends = np.cumsum(lengths)
    indices: IntArray = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return indices


def offsets_of(lengths: IntArray) -> IntArray:
    """[B] lengths → [B + 1] int64 offsets of rows that lie end to end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


@dataclass(frozen=True)
class Prompt:
    """A prompt of the data set, tokenized once. `id` is its position in the set and never changes."""

    id: int
    token_ids: Sequence[int] | IntArray = field(compare=False)  # [T], a view of the mapped data where it can be


@dataclass(frozen=True)
class Sample:
    """One response to one prompt, as a step requests it."""

    prompt: Prompt
    sample_id: int
    """Which of the prompt's responses in this step, 0-based."""
    seed: int
    """Derived from (run seed, step, prompt id, sample id), never from the sampler: see `sample_seed`."""


@dataclass(frozen=True)
class Rollouts:
    """B sampled responses with their prompts: those of one lease, or a whole step's."""

    offsets: IntArray  # [B + 1] int64, row b has the tokens offsets[b] to offsets[b + 1]
    tokens: IntArray  # [N] int32, prompt then response
    loss_mask: BoolArray  # [N], True on the tokens that are trained on: the response's, its eos included
    engine_logprobs: FloatArray  # [N] float32, the sampler's log p (see Sampling), 0 outside loss_mask
    versions: IntArray  # [N] int32, of the weights that sampled each token, 0 outside loss_mask
    prompt_lengths: IntArray  # [B] int32, tokens before the first response
    finished: BoolArray  # [B], True if the response ended with its eos, False if it was cut at the limit
    prompt_ids: IntArray  # [B] int64
    sample_ids: IntArray  # [B] int32

    PER_TOKEN: ClassVar = ("tokens", "loss_mask", "engine_logprobs", "versions")
    PER_ROW: ClassVar = ("prompt_lengths", "finished", "prompt_ids", "sample_ids")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def lengths(self) -> IntArray:
        """[B] int64, tokens of prompt and response."""
        return np.diff(self.offsets)

    @property
    def response_lengths(self) -> IntArray:
        """[B] int64, tokens that are trained on."""
        return self._per_row(np.add, self.loss_mask.astype(np.int64))

    @property
    def oldest_versions(self) -> IntArray:
        """[B] int32, of the weights that sampled any of a response's tokens."""
        return self._per_row(np.minimum, np.where(self.loss_mask, self.versions, np.iinfo(np.int32).max))

    @property
    def newest_versions(self) -> IntArray:
        """[B] int32; it is the oldest one if the weights did not change while the response was sampled."""
        return self._per_row(np.maximum, np.where(self.loss_mask, self.versions, -1))

    @property
    def keys(self) -> list[tuple[int, int]]:
        """(prompt id, sample id) of each row."""
        return list(zip(self.prompt_ids.tolist(), self.sample_ids.tolist(), strict=True))

    @property
    def state_offsets(self) -> IntArray:
        """[B + 1] int64: `offsets` of arrays of states, of which a row has one more than tokens."""
        return self.offsets + np.arange(len(self.offsets))

    def padded(self, flat: np.ndarray, rows: IntArray | None = None, width: int | None = None) -> np.ndarray:
        """[N] → [b, T], or of states [N + B] → [b, T + 1]; see `pad_rows`."""
        offsets = self.offsets if len(flat) == len(self.tokens) else self.state_offsets
        return pad_rows(flat, offsets, rows, width)

    def take(self, rows: IntArray) -> Rollouts:
        """The given rows, in that order."""
        picked = row_indices(self.offsets, rows)
        return Rollouts(
            offsets=offsets_of(self.lengths[rows]),
            **{name: getattr(self, name)[picked] for name in self.PER_TOKEN},
            **{name: getattr(self, name)[rows] for name in self.PER_ROW},
        )

    @staticmethod
    def concat(parts: Sequence[Rollouts]) -> Rollouts:
        """Rollouts of several leases as one, ordered by (prompt id, sample id).

        The order does not depend on who sampled what, so the rest of the step does not either.
        """
        joined = Rollouts(
            offsets=offsets_of(np.concatenate([part.lengths for part in parts])),
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in (*Rollouts.PER_TOKEN, *Rollouts.PER_ROW)
            },
        )
        return joined.take(np.lexsort((joined.sample_ids, joined.prompt_ids)))

    def _per_row(self, reduce: np.ufunc, flat: np.ndarray) -> np.ndarray:
        """[N] → [B]. No row is empty: a prompt has a token."""
        reduced: np.ndarray = reduce.reduceat(flat, self.offsets[:-1]) if len(self) else flat[:0]
        return reduced


@dataclass(frozen=True)
class RowShare:
    """What one rank computed for the rollouts `rows` of a step: one value each, or one for each token or state."""

    rows: IntArray  # [n] int64
    values: FloatArray  # [n], or flat, row after row
    lengths: IntArray | None = None  # [n] int64, values of each row; None is one each

    @staticmethod
    def merge(shares: Sequence[RowShare], num_rows: int) -> FloatArray:
        """The shares of all ranks in the order of rows: [B], or flat. Every row must be there exactly once."""
        lengths = np.concatenate([np.ones(len(s.rows), np.int64) if s.lengths is None else s.lengths for s in shares])
        values = np.concatenate([share.values for share in shares])
        merged: FloatArray = values[row_indices(offsets_of(lengths), share_order(shares, num_rows))]
        return merged


class Share(Protocol):
    """What one rank computed for some rows of a step."""

    @property
    def rows(self) -> IntArray: ...


def share_order(shares: Sequence[Share], num_rows: int) -> IntArray:
    """[num_rows]: where each row of the step is in the shares of all ranks. Every row must be there exactly once."""
    rows = np.concatenate([share.rows for share in shares])
    assert np.array_equal(np.sort(rows), np.arange(num_rows)), "ranks did not cover every row exactly once"
    return np.argsort(rows)


@dataclass(frozen=True)
class TrainBatch:
    """A step's rollouts with credit assigned: all that the learners train on. Ragged, as `Rollouts` are."""

    rollouts: Rollouts
    old_logprobs: FloatArray  # [N] float32, log π_old at the sampling temperature
    advantages: FloatArray  # [N] float32, 0 outside loss_mask
    kl_coef: float
    max_response_tokens: int
    ref_logprobs: FloatArray | None = None  # [N] float32, log π_ref, if the loss has a KL term
    # With a critic, of the states: a row of T tokens has T + 1. Index t is the state before token t.
    values: FloatArray | None = None  # [N + B] float32
    returns: FloatArray | None = None  # [N + B] float32
    value_mask: BoolArray | None = None  # [N + B], the states whose values are learned

    def size_of(self, rows: IntArray) -> StepSize:
        """What an optimizer step on `rows` divides its sums by."""
        rollouts, num_states = self.rollouts, 0
        if self.value_mask is not None:
            num_states = int(self.value_mask[row_indices(rollouts.state_offsets, rows)].sum())
        num_tokens = int(rollouts.loss_mask[row_indices(rollouts.offsets, rows)].sum())
        return StepSize(num_tokens, len(rows), self.max_response_tokens, num_states)


@dataclass(frozen=True)
class StepSize:
    """The samples of one optimizer step, over all ranks."""

    num_tokens: int
    """Of the responses."""
    num_sequences: int
    max_response_tokens: int
    """How long a response may be."""
    num_states: int = 0
    """Whose values are learned."""


def sample_seed(run_seed: int, step: int, prompt_id: int, sample_id: int) -> int:
    """Seed of one response, in [0, 2^31). The same whichever sampler it is, and however many there are."""
    entropy = np.random.SeedSequence([run_seed, step, prompt_id, sample_id]).generate_state(1)[0]
    return int(entropy) & 0x7FFFFFFF
