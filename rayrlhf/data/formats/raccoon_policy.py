"""raccoon policy: `{original_text, sum_text}`, a text and its summary."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class RaccoonPolicy(Row):
    name: ClassVar[str] = "raccoon_policy"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    original_text: str
    sum_text: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.original_text)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.sum_text, origin=origin)]
