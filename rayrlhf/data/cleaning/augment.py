"""Synthetic rejected answers for the reward model, made from chosen ones (the three kinds of raccoon)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.records import Preference
from rayrlhf.data.tokens.splits import position

Negative = Literal["random_words", "repeated_tail", "other_answer"]


class Augmentation(Config):
    """Pairs of a chosen answer with a synthetic one. They join the training pairs only, marked as synthetic."""

    negatives: tuple[Negative, ...] = Field(default=("random_words", "repeated_tail", "other_answer"), min_length=1)
    """`random_words`: as many words, sampled from all answers. `repeated_tail`: the answer with its end repeated.
    `other_answer`: the chosen answer of another prompt."""
    share: float = Field(default=0.3, gt=0, le=1)
    """Share of the prompts that get each kind of negative."""
    num_repeats: int = Field(default=3, ge=1)
    """How often `repeated_tail` repeats the end."""

    def make(self, pairs: Sequence[Preference], seed: int, account: Account) -> Iterator[Preference]:
        """Synthetic pairs for the first pair of each prompt, in the order of these.

        Each depends on the seed, its prompt and which prompts and answers there are, not on the order of the rows.
        """
        first: dict[str, Preference] = {}
        for pair in pairs:
            first.setdefault(pair.prompt.key, pair)
        donors = _Donors(first)
        for key, pair in first.items():
            for kind in self.negatives:
                if position(f"{kind}\x1e{key}", seed) >= self.share:
                    continue
                rejected = self._negative(kind, pair, donors, random.Random(f"{seed}\x1e{kind}\x1e{key}"))
                if rejected is None or rejected == pair.chosen:
                    account.notes[f"no {kind} negative could be made"] += 1
                    continue
                origin = replace(pair.origin, siblings=0, rule=kind, synthetic=True)
                account.notes["synthetic pairs"] += 1
                yield replace(pair, rejected=rejected, margin=0.0, origin=origin)

    def _negative(self, kind: Negative, pair: Preference, donors: _Donors, rng: random.Random) -> str | None:
        words = pair.chosen.split()
        if kind == "repeated_tail":
            tail = words[-max(1, len(words) // 3) :]
            return " ".join(words + tail * self.num_repeats) if words else None
        if len(donors.answers) < 2:
            return None
        if kind == "other_answer":
            return donors.other_than(pair.prompt.key, rng)
        return " ".join(rng.choice(donors.words(rng)) for _ in words) or None


class _Donors:
    """Chosen answers, ordered by prompt, so that the order of the rows does not matter."""

    def __init__(self, pairs: Mapping[str, Preference]) -> None:
        keys = sorted(pairs)
        self._index = {key: index for index, key in enumerate(keys)}
        self.answers = [pairs[key].chosen for key in keys]

    def words(self, rng: random.Random) -> list[str]:
        """The words of any answer; one without white space between them is one word."""
        answer = rng.choice(self.answers)
        return answer.split() or [answer]

    def other_than(self, key: str, rng: random.Random) -> str:
        """The answer to any other prompt than `key`."""
        index = rng.randrange(len(self.answers) - 1)
        return self.answers[index + (index >= self._index[key])]
