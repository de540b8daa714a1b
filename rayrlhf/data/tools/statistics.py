"""Statistics of a data set: lengths and languages."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from rayrlhf.data.cleaning.languages import language_of
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import LabeledAnswer, Preference, Record

PARTS = ("prompt", "answer", "rejected answer")
SAMPLE = 2000
"""Records in the uniform sample for tokens and languages; characters are counted in all records."""

Encode = Callable[[Sequence[str]], Sequence[list[int] | Rejected]]


class Statistics:
    """Collects statistics of a stream of records."""

    def __init__(self, encode: Encode | None = None, sample_size: int = SAMPLE) -> None:
        """encode: texts as tokens; without it, only characters are counted."""
        self._encode, self._sample_size = encode, sample_size
        self._rng = random.Random(0)
        self._chars = {part: array("Q") for part in PARTS}
        self.sample: list[Record] = []
        self.num_records = 0
        self.num_pairs = 0
        self.longer_wins = 0.0
        """Pairs of which the chosen answer has more characters; as many count half."""
        self.num_desirable = 0
        """Labeled answers that are good."""

    def add(self, record: Record) -> None:
        """Count a record and update the sample (reservoir sampling, Vitter 1985, algorithm R)."""
        if isinstance(record, Preference):
            self.num_pairs += 1
            chosen, rejected = len(record.chosen), len(record.rejected)
            self.longer_wins += (chosen > rejected) + (chosen == rejected) / 2
        elif isinstance(record, LabeledAnswer):
            self.num_desirable += record.desirable
        for part, text in _parts(record):
            self._chars[part].append(len(text))
        self.num_records += 1
        if len(self.sample) < self._sample_size:
            self.sample.append(record)
        elif (place := self._rng.randrange(self.num_records)) < self._sample_size:
            self.sample[place] = record

    def lengths(self) -> dict[str, dict[str, float]]:
        """{"prompt, characters": {min, median, mean, p95, max}, …}; also in tokens, if there is a tokenizer."""
        rows = {f"{part}, characters": np.array(counts) for part, counts in self._chars.items() if counts}
        if self._encode is not None:
            for part in PARTS:
                texts = [text for record in self.sample for name, text in _parts(record) if name == part]
                if counts := [len(row) for row in self._encode(texts) if not isinstance(row, Rejected)]:
                    rows[f"{part}, tokens"] = np.array(counts)
        return {name: _summary(values) for name, values in rows.items()}

    def languages(self) -> Counter[str]:
        """Records of the sample by language of prompt and answer together."""
        return Counter(language_of("\n".join((record.prompt.text, *record.answers[:1]))) for record in self.sample)


def _parts(record: Record) -> list[tuple[str, str]]:
    return list(zip(PARTS, (record.prompt.text, *record.answers), strict=False))


def _summary(values: np.ndarray) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }
