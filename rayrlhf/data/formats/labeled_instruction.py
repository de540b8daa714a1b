"""Unpaired feedback of LLaMA-Factory: `{instruction, output, kto_tag, input?}`; the tag is true or false."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.asked import Instructed
from rayrlhf.data.formats.base import Truth
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin
from rayrlhf.data.ingest.rules import RowRules


class LabeledInstruction(Instructed):
    name: ClassVar[str] = "labeled_instruction"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    output: str
    kto_tag: Truth

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(self.prompt_text(), self.output, self.kto_tag, origin=origin)]
