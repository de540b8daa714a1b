"""AlpacaFarm's comparisons: `{instruction, input, output_1, output_2, preference}`; preference is 1 or 2."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, Whole, pairs_of
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class AlpacaFarm(Row):
    name: ClassVar[str] = "alpaca_farm"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    instruction: str
    input: str | None = None
    output_1: str
    output_2: str
    preference: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.instruction, self.input)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        if self.preference not in (1, 2):
            raise Rejected("choice out of range", f"preference is {self.preference}, of answers 1 and 2")
        better = self.preference - 1
        texts = (self.output_1, self.output_2)
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
