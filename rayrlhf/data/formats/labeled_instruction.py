"""Unpaired feedback under other names: a question, an answer and a label that is true or false (LLaMA-Factory, WikiQA,
BeaverTails)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import ANSWERS, LABELS, Instructed
from rayrlhf.data.formats.base import Truth, first_of, is_label
from rayrlhf.data.formats.labeled_completion import LabeledCompletion
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin
from rayrlhf.data.ingest.rules import RowRules


class LabeledInstruction(Instructed):
    name: ClassVar[str] = "labeled_instruction"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    without_label: ClassVar[str] = "prompt_response"
    output: str = Field(validation_alias=AliasChoices(*ANSWERS))
    label: Truth = Field(validation_alias=AliasChoices(*LABELS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        is_labeled = not cls.missing(value) and is_label(first_of(value, LABELS))
        return is_labeled and not LabeledCompletion.recognizes(value)

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(self.prompt_text(), self.output, self.label, origin=origin)]
