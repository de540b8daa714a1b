"""Auto-J's comparisons: `{prompt, "response 1", "response 2", label}`; label 0 is the first, 1 the second, 2 a tie."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rayrlhf.data.formats.base import Row, Whole, pairs_of
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.pairing import chosen_index
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules

TIE = 2


class AutoJ(Row):
    name: ClassVar[str] = "auto_j"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    response_1: str = Field(alias="response 1")
    response_2: str = Field(alias="response 2")
    label: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        if self.label == TIE:
            raise Rejected("tie", f"label is {TIE}")
        better = chosen_index(self.label, 2)
        texts = (self.response_1, self.response_2)
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
