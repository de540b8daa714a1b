"""Token sequences end to end: a handful of flat arrays, in memory or mapped from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

TokenRow = tuple[list[int], list[int]]
"""(prompt ids, answer ids)"""


@dataclass(frozen=True)
class Sequences:
    """N token sequences, prompt then answer, end to end: a handful of arrays that Ray shares without a copy."""

    tokens: np.ndarray  # [sum(lengths)] int32
    offsets: np.ndarray  # [N + 1] int64, row i is tokens[offsets[i]:offsets[i + 1]]
    prompt_lengths: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, tokens per row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """Tokens of one row, [T] int32."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def pick(self, rows: Sequence[int] | np.ndarray) -> Sequences:
        """The given rows alone."""
        picked = np.asarray(rows, dtype=np.int64)
        return Sequences(
            tokens=np.concatenate([self.tokens[:0], *(self.row(row) for row in picked)]),
            offsets=np.concatenate([[0], np.cumsum(self.lengths_of(picked))]).astype(np.int64),
            prompt_lengths=self.prompt_lengths[picked],
        )

    def padded(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The given rows, [B, T] int64, right-padded with 0."""
        lengths = self.lengths_of(rows)
        batch = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.int64)
        for index, row in enumerate(rows):
            batch[index, : lengths[index]] = self.tokens[self.offsets[row] : self.offsets[row + 1]]
        return batch

    def lengths_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[B] int64, tokens of the given rows."""
        picked = np.asarray(rows, dtype=np.int64)
        return np.asarray(self.offsets[picked + 1] - self.offsets[picked])

    @staticmethod
    def build(rows: Sequence[TokenRow]) -> Sequences:
        """From (prompt ids, answer ids) pairs."""
        lengths = [len(prompt) + len(answer) for prompt, answer in rows]
        return Sequences(
            tokens=np.fromiter(chain.from_iterable(chain.from_iterable(rows)), np.int32, sum(lengths)),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            prompt_lengths=np.array([len(prompt) for prompt, _ in rows], dtype=np.int32),
        )


class SequencesWriter:
    """Writes sequences to files as they come, so that a set larger than memory can be made."""

    def __init__(self, folder: Path, name: str) -> None:
        self._tokens, self._lengths, self._prompts = (path.open("wb") for path in _paths(folder, name))

    def close(self) -> None:
        for file in (self._tokens, self._lengths, self._prompts):
            file.close()

    def append(self, rows: Sequence[TokenRow]) -> None:
        """Add rows behind those written before."""
        batch = Sequences.build(rows)
        self._tokens.write(batch.tokens.tobytes())
        self._lengths.write(batch.lengths.astype(np.int32).tobytes())
        self._prompts.write(batch.prompt_lengths.tobytes())


def map_sequences(folder: Path, name: str) -> Sequences:
    """What a SequencesWriter wrote, mapped: pages come from the disk when they are used."""
    tokens, lengths, prompts = (map_array(path, np.int32) for path in _paths(folder, name))
    return Sequences(
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        prompt_lengths=prompts,
    )


def _paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / f"{name}.tokens.i32", folder / f"{name}.lengths.i32", folder / f"{name}.prompts.i32"


def map_array(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """A file's numbers, mapped."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))
