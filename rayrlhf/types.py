"""All that crosses an actor boundary. Shapes stand beside the fields; B rollouts, T tokens.

One alignment holds everywhere: per-token arrays are [B, T], right-padded, and index t speaks about token t:
`logprobs[b, t]` is log p(tokens[b, t] | tokens[b, :t]), `values[b, t]` is V(state before token t), `rewards[b, t]`
is what token t earned. Entries outside `response_mask` are 0.

Arrays are numpy so that Ray's object store hands them out without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

FloatArray = np.ndarray
IntArray = np.ndarray
BoolArray = np.ndarray

Pooling = Literal["last", "mean"]
"""How a scalar head's outputs become one score: that of the last token, or the mean over all."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of the data set, tokenised once. `id` is its position in the set and never changes."""

    id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One response to draw: the unit that a sampler is asked for."""

    prompt: Prompt
    sample_id: int
    """Which of the prompt's responses in this step, 0-based."""
    seed: int
    """Derived from (run seed, step, prompt id, sample id), never from the sampler: see `sample_seed`."""


@dataclass(frozen=True)
class Rollouts:
    """B sampled responses with their prompts, as one sampler made them or as a whole step."""

    tokens: IntArray  # [B, T] int32, prompt then response, right-padded with 0
    prompt_lengths: IntArray  # [B] int32
    lengths: IntArray  # [B] int32, prompt + response
    engine_logprobs: FloatArray  # [B, T] float32, the sampler's log p (see Sampling), 0 outside response_mask
    finished: BoolArray  # [B], True if the response ended with its eos, False if it was cut at the limit
    prompt_ids: IntArray  # [B] int64
    sample_ids: IntArray  # [B] int32
    versions: IntArray  # [B, T] int32, of the weights that drew each response token, 0 outside response_mask

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def response_mask(self) -> BoolArray:
        """[B, T], True on response tokens, the eos included."""
        positions = np.arange(self.tokens.shape[1])
        return (positions >= self.prompt_lengths[:, None]) & (positions < self.lengths[:, None])

    @property
    def response_lengths(self) -> IntArray:
        """[B] int32, in tokens."""
        return self.lengths - self.prompt_lengths

    @property
    def oldest_versions(self) -> IntArray:
        """[B] int32, of the weights that drew any of a response's tokens."""
        return np.where(self.response_mask, self.versions, np.iinfo(np.int32).max).min(1)

    @property
    def newest_versions(self) -> IntArray:
        """[B] int32; it is the oldest one if the weights did not change while the response was drawn."""
        return np.where(self.response_mask, self.versions, -1).max(1)

    def take(self, rows: np.ndarray) -> Rollouts:
        """The rollouts `rows`, in that order."""
        return Rollouts(**{field.name: getattr(self, field.name)[rows] for field in fields(Rollouts)})

    @staticmethod
    def concat(parts: Sequence[Rollouts]) -> Rollouts:
        """The rollouts of several samplers as one, ordered by (prompt id, sample id).

        The order does not depend on who sampled what, so the rest of the step does not either.
        """
        width = max(part.tokens.shape[1] for part in parts)
        columns = {
            field.name: np.concatenate([pad_columns(getattr(part, field.name), width) for part in parts])
            for field in fields(Rollouts)
        }
        order = np.lexsort((columns["sample_ids"], columns["prompt_ids"]))
        return Rollouts(**{name: column[order] for name, column in columns.items()})


@dataclass(frozen=True)
class RowShare:
    """What one rank computed: `values` for the rollouts `rows` of the step."""

    rows: IntArray  # [n]
    values: FloatArray  # [n] or [n, T]

    @staticmethod
    def merge(shares: Sequence[RowShare], num_rows: int) -> FloatArray:
        """The shares of all ranks put back in order: [B] or [B, T]. Every row must be there exactly once."""
        rows = np.concatenate([share.rows for share in shares])
        assert np.array_equal(np.sort(rows), np.arange(num_rows)), "ranks did not cover every row exactly once"
        shares = [share for share in shares if len(share.rows)]  # with fewer rows than ranks, some have none
        width = max(share.values.shape[-1] if share.values.ndim == 2 else 0 for share in shares)
        rows = np.concatenate([share.rows for share in shares])
        values = np.concatenate([pad_columns(share.values, width) for share in shares])
        merged = np.empty_like(values)
        merged[rows] = values
        return merged


@dataclass(frozen=True)
class TrainBatch:
    """A step's rollouts with credit assigned: all that the learners train on."""

    rollouts: Rollouts
    old_logprobs: FloatArray  # [B, T] float32, log π_old at the sampling temperature
    advantages: FloatArray  # [B, T] float32, 0 outside response_mask
    kl_coef: float
    max_response_tokens: int
    ref_logprobs: FloatArray | None = None  # [B, T] float32, log π_ref, if the loss has a KL term
    # With a critic, of the states: T tokens have T + 1. Index t is the state before token t.
    values: FloatArray | None = None  # [B, T + 1] float32
    returns: FloatArray | None = None  # [B, T + 1] float32
    value_mask: BoolArray | None = None  # [B, T + 1], the states whose values are learnt

    def size_of(self, rows: np.ndarray) -> StepSize:
        """What an optimizer step on `rows` divides its sums by."""
        num_tokens = int(self.rollouts.response_lengths[rows].sum())
        num_states = 0 if self.value_mask is None else int(self.value_mask[rows].sum())
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
    """Whose values are learnt."""


def pad_columns(array: np.ndarray, width: int) -> np.ndarray:
    """[B, t] → [B, width] with zeros on the right; arrays of one dimension come back as they are."""
    if array.ndim == 1 or array.shape[1] == width:
        return array
    return np.pad(array, ((0, 0), (0, width - array.shape[1])))


def sample_seed(run_seed: int, step: int, prompt_id: int, sample_id: int) -> int:
    """Seed of one response, in [0, 2^31). It is the same whichever sampler draws it, and however many there are."""
    entropy = np.random.SeedSequence([run_seed, step, prompt_id, sample_id]).generate_state(1)[0]
    return int(entropy) & 0x7FFFFFFF
