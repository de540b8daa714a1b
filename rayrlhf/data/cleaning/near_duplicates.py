"""Near duplicates: texts so similar that a data set should keep only the first of them.

Greedy: a text is dropped if it is too similar to an earlier one that was kept. The result depends on the order of the
texts only, and for every dropped text the one that it duplicates is still in the data.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from rayrlhf.config import Config

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_BLOCK = 256  # rows of a similarity matrix that are in memory at a time

RECALL = 0.95
"""MinHash compares at least this share of the pairs whose similarity equals the threshold, and more of those above."""
SEED = 42


class TfidfDuplicates(Config):
    """Cosine of TF-IDF vectors. Every text is compared with every other: twice as many take four times as long.

    On one core 12,000 Korean prompts of 5 words take 0.2 s and 100,000 take 4 s; 12,000 of 45 words take 3 s. Memory is
    that of the texts, their vectors and 256 rows of the similarity matrix. Beyond 200,000 texts use `minhash`.

    The vectors count words: runs of letters and digits in lower case, as in scikit-learn, but one-letter words too,
    since many Korean words have one syllable. This suits Korean and English, which both put spaces between words.
    Character n-grams would match '여행을' with '여행이', but common endings as well: of 12,000 Korean prompts they drop
    half as many again at 0.5, many of them different questions.
    """

    kind: Literal["tfidf"] = "tfidf"
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Texts are near duplicates if their cosine is at least this."""
    of: Literal["prompt", "all"] = "prompt"
    """What is compared: prompts, or prompts with their answers."""

    def find(self, texts: Iterable[str]) -> Iterator[int | None]:
        """For each text in order: the index of the first kept text that it nearly repeats, or None if it stays.

        Reads all of `texts` before it gives the first answer, since a word's weight depends on them all.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        all_texts = list(texts)
        if not all_texts:
            return
        vectors = TfidfVectorizer(analyzer=_words).fit_transform(all_texts)  # [N, words], rows of length 1
        stays = np.ones(len(all_texts), dtype=bool)
        for start in range(0, len(all_texts), _BLOCK):
            end = min(start + _BLOCK, len(all_texts))
            cosines = vectors[start:end] @ vectors[:end].T  # [rows, end], sparse
            close = cosines.data >= self.threshold - 1e-9  # equal texts may have 1 - 1e-16
            for row in range(start, end):
                entries = slice(cosines.indptr[row - start], cosines.indptr[row - start + 1])
                like = cosines.indices[entries][close[entries]]
                like = like[(like < row) & stays[like]]
                stays[row] = like.size == 0
                yield None if stays[row] else int(like.min())

    def match(self, texts: Sequence[str], others: Sequence[str]) -> list[int | None]:
        """For each text: the index of the most similar of `others` if it reaches the threshold, else None."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not texts or not others:
            return [None] * len(texts)
        vectors = TfidfVectorizer(analyzer=_words).fit_transform([*texts, *others])
        ours, theirs = vectors[: len(texts)], vectors[len(texts) :].T
        found: list[int | None] = []
        for start in range(0, len(texts), _BLOCK):
            cosines = ours[start : min(start + _BLOCK, len(texts))] @ theirs
            nearest = cosines.argmax(axis=1).A1
            highest = cosines.max(axis=1).toarray().ravel()
            found += [
                int(n) if value >= self.threshold - 1e-9 else None for n, value in zip(nearest, highest, strict=True)
            ]
        return found


class MinHashDuplicates(Config):
    """Estimated Jaccard similarity of the sets of character n-grams, from MinHash signatures. For millions of texts.

    Broder (1997), with the banding of Leskovec et al., "Mining of Massive Datasets", section 3.4: only texts that agree
    in a band of their signatures are compared, and then by their whole signatures against `threshold`. One core reads
    20,000 prompts of 30 characters a second; each kept text takes 430 to 570 bytes. Texts that are mostly one template
    agree in bands without being near duplicates, which makes it slow.
    """

    kind: Literal["minhash"] = "minhash"
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Texts are near duplicates if their estimated Jaccard similarity is at least this."""
    of: Literal["prompt", "all"] = "prompt"
    """What is compared: prompts, or prompts with their answers."""
    num_hashes: int = Field(default=128, ge=16, le=4096)
    """Length of a signature. The estimate's standard deviation is at most 0.5 / sqrt(num_hashes)."""
    shingle: int = Field(default=3, ge=1)
    """Characters per n-gram. Three Korean syllables carry about as much as an English word."""

    def find(self, texts: Iterable[str]) -> Iterator[int | None]:
        """For each text in order: the index of the first kept text that it nearly repeats, or None if it stays.

        Lazy: a text is read when its result is asked for. Some pairs may be missed (see `RECALL`); equal texts never.
        """
        from rensa import RMinHash

        kept = _Signatures(self.threshold, self.num_hashes)
        for index, text in enumerate(texts):
            minhash = RMinHash(self.num_hashes, SEED)
            minhash.update(_shingles(text, self.shingle))
            # 16 bits of each hash: two are equal by chance once in 65,536 times.
            signature = np.frombuffer(array("I", minhash.digest()), dtype=np.uint16)[::2]
            yield kept.find_or_add(signature, index)


NearDuplicates = Annotated[TfidfDuplicates | MinHashDuplicates, Field(discriminator="kind")]


class _Signatures:
    """The signatures of the kept texts, and a chained hash table for each band of them, all in flat arrays.

    A table entry is `row * bands + band`. Library tables hold Python objects: 2 to 6 kB per text.
    """

    def __init__(self, threshold: float, num_hashes: int) -> None:
        self.min_equal = threshold * num_hashes - 1e-9
        self.rows = _rows_per_band(threshold, num_hashes)
        self.bands = num_hashes // self.rows
        # A band's hash is the sum of its values times odd numbers, mod 2^64, of which the upper bits count.
        self.used = self.bands * self.rows
        self.factors = np.random.default_rng(SEED).integers(1 << 63, size=self.used, dtype=np.uint64) | 1
        self.starts = np.arange(0, self.used, self.rows)
        self.steps = np.arange(self.bands)
        self.count = 0
        self.signatures: NDArray[np.uint16] = np.empty((0, num_hashes), dtype=np.uint16)  # [capacity, num_hashes]
        self.indices: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # [capacity], of the kept texts
        self._grow(1024)

    def find_or_add(self, signature: NDArray[np.uint16], index: int) -> int | None:
        """The index of the first text with a matching signature. If there is none, adds this one and returns None."""
        slots = self._slots(signature[None])[0]
        entries = self.heads[slots]
        chains = []
        while (entries := entries[entries >= 0]).size:
            chains.append(entries)
            entries = self.nexts[entries]
        if chains:
            rows, bands = np.divmod(np.concatenate(chains), self.bands)
            first = bands * self.rows
            # A band's first value rules out those that only share a slot.
            rows = rows[self.signatures[rows, first] == signature[first]]
            if rows.size:
                like = rows[(self.signatures[rows] == signature).sum(axis=1) >= self.min_equal]
                if like.size:
                    return int(self.indices[like.min()])
        if self.count == len(self.indices):
            self._grow(2 * self.count)
            slots = self._slots(signature[None])[0]
        self.signatures[self.count] = signature
        self.indices[self.count] = index
        self._link(self.count, slots)
        self.count += 1
        return None

    def _slots(self, signatures: NDArray[np.uint16]) -> NDArray[np.int64]:
        """[n, num_hashes] -> [n, bands]: where in `heads` the chain of each band begins."""
        hashes = np.add.reduceat(signatures[:, : self.used] * self.factors, self.starts, axis=1)
        return (hashes >> self.shift).astype(np.int64) + self.offsets

    def _link(self, row: int, slots: NDArray[np.int64]) -> None:
        first = row * self.bands
        self.nexts[first : first + self.bands] = self.heads[slots]
        self.heads[slots] = self.steps + first

    def _grow(self, capacity: int) -> None:
        """Make room for `capacity` rows, a power of two; memory that is not used yet is not touched."""
        signatures = np.empty((capacity, self.signatures.shape[1]), dtype=np.uint16)
        indices = np.empty(capacity, dtype=np.int64)
        signatures[: self.count], indices[: self.count] = self.signatures, self.indices
        self.signatures, self.indices = signatures, indices
        self.shift = np.uint64(64 - (capacity.bit_length() - 1))
        self.offsets = self.steps * capacity
        self.heads: NDArray[np.int32] = np.full(self.bands * capacity, -1, dtype=np.int32)
        self.nexts: NDArray[np.int32] = np.empty(self.bands * capacity, dtype=np.int32)
        for start in range(0, self.count, 1024):
            end = min(start + 1024, self.count)
            for row, slots in enumerate(self._slots(signatures[start:end]), start):
                self._link(row, slots)


def _rows_per_band(threshold: float, num_hashes: int) -> int:
    """The most rows per band that still find RECALL of the pairs at the threshold: more rows, fewer comparisons."""
    found = (1 - (1 - threshold**rows) ** (num_hashes // rows) for rows in range(1, num_hashes + 1))
    return max((rows for rows, share in enumerate(found, 1) if share >= RECALL), default=1)


def _words(text: str) -> Sequence[str]:
    """The words of `text`; the text itself if it has none, so that "?!" matches "?!" only."""
    return _WORD.findall(text.lower()) or [text]


def _shingles(text: str, length: int) -> set[str]:
    """The character n-grams of `text`, lower-cased, white space collapsed; the whole text if it is shorter."""
    line = " ".join(text.lower().split())
    return {line[start : start + length] for start in range(max(1, len(line) - length + 1))}
