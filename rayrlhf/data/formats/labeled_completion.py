"""Unpaired feedback (TRL's KTO): `{prompt, completion, label}`, texts or messages; a label is true or false."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import LABELS, Conversed
from rayrlhf.data.formats.base import Truth, first_of, is_label
from rayrlhf.data.formats.chat_pair import Said, messages_of, split_answer
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class LabeledCompletion(Conversed):
    name: ClassVar[str] = "labeled_completion"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    without_label: ClassVar[str] = "prompt_completion or chat_completion"
    prompt: Said
    completion: Said
    label: Truth = Field(validation_alias=AliasChoices(*LABELS))
    input: str | None = None

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        """Some data name a topic in `label`."""
        return not cls.missing(value) and is_label(first_of(value, LABELS))

    def prompt_text(self) -> PromptText:
        return self._answered()[0]

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(*self._answered(), self.label, origin=origin)]

    def _answered(self) -> tuple[PromptText, str]:
        turns = messages_of(self.prompt, "user") + messages_of(self.completion, "assistant")
        prompt, answer = split_answer(turns)
        return self.after_all(PromptText(prompt.messages, self.input or None)), answer
