"""Unpaired feedback of LLaMA-Factory: `{instruction, output, kto_tag, input?}`; the tag is true or false."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, Truth
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class LabeledInstruction(Row):
    name: ClassVar[str] = "labeled_instruction"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    instruction: str
    output: str
    kto_tag: Truth
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.instruction, self.input)

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(self.prompt_text(), self.output, self.kto_tag, origin=origin)]
