"""raccoon choice C: `{original_text, good_summarize, bad_summarize}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, pairs_of
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class RaccoonChoiceC(Row):
    name: ClassVar[str] = "raccoon_choice_c"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    original_text: str
    good_summarize: str
    bad_summarize: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.original_text)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        return pairs_of(self.prompt_text(), (self.good_summarize, self.bad_summarize), [(0, 1)], origin, "choice")
