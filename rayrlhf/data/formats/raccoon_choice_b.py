"""raccoon choice B: `{original_text, summarize_0, summarize_1, choice}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import chosen_index
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class RaccoonChoiceB(Row):
    name: ClassVar[str] = "raccoon_choice_b"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    original_text: str
    summarize_0: str
    summarize_1: str
    choice: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.original_text)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts = (self.summarize_0, self.summarize_1)
        better = chosen_index(self.choice, len(texts))
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
