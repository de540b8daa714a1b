"""vaiv scores (G-Eval): `{prompt, response1, scores1, sum1, response2, scores2, sum2}`."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rayrlhf.data.formats.base import Row, Score, pairs_of
from rayrlhf.data.ingest.pairing import better_of_scores
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class VaivScores(Row):
    name: ClassVar[str] = "vaiv_scores"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    response1: str
    sum1: Score
    response2: str
    sum2: Score

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        better_first = better_of_scores((self.sum1, self.sum2), rules)
        pairs = pairs_of(self.prompt_text(), (self.response1, self.response2), [better_first], origin, "scores")
        return [replace(pair, margin=abs(self.sum1 - self.sum2)) for pair in pairs]
