"""Stanford Human Preferences: `{history, human_ref_A, human_ref_B, labels, score_A, score_B}`; labels 1 is A."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, Score, Whole
from rayrlhf.data.ingest.pairing import chosen_index, known_margin
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Shp(Row):
    name: ClassVar[str] = "shp"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    history: str
    human_ref_A: str
    human_ref_B: str
    labels: Whole
    score_A: Score | None = None
    score_B: Score | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.history)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts, scores = (self.human_ref_B, self.human_ref_A), (self.score_B, self.score_A)
        better = chosen_index(self.labels, 2)
        margin = known_margin(scores[better], scores[1 - better], rules)
        return [Preference(self.prompt_text(), texts[better], texts[1 - better], margin, origin=origin)]
