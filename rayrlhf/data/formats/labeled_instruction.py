"""Unpaired feedback under other names: a question, an answer and a label that is true or false (LLaMA-Factory, WikiQA,
BeaverTails)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import ANSWERS, Instructed, Labeled
from rayrlhf.data.formats.labeled_completion import LabeledCompletion
from rayrlhf.data.ingest.records import PromptText


class LabeledInstruction(Labeled, Instructed):
    name: ClassVar[str] = "labeled_instruction"
    without_label: ClassVar[str] = "prompt_response"
    output: str = Field(validation_alias=AliasChoices(*ANSWERS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return super().recognizes(value) and not LabeledCompletion.recognizes(value)

    def answered(self) -> tuple[PromptText, str]:
        return Instructed.prompt_text(self), self.output
