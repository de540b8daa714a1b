"""Unpaired feedback on chats: `{messages or conversations, label or kto_tag}` (TRL, LLaMA-Factory); the label is of the
last turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import LABELS, Conversed
from rayrlhf.data.formats.base import Truth, Turn, Turns, first_of, is_label
from rayrlhf.data.formats.chat_pair import CHATS, messages_of, split_answer
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class LabeledChat(Conversed):
    name: ClassVar[str] = "labeled_chat"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    without_label: ClassVar[str] = "chat"
    messages: Annotated[list[Turn], Turns] = Field(validation_alias=AliasChoices(*CHATS))
    label: Truth = Field(validation_alias=AliasChoices(*LABELS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return not cls.missing(value) and is_label(first_of(value, LABELS))

    def prompt_text(self) -> PromptText:
        return self._answered()[0]

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(*self._answered(), self.label, origin=origin)]

    def _answered(self) -> tuple[PromptText, str]:
        prompt, answer = split_answer(messages_of(self.messages, "assistant"))
        return self.after_all(prompt), answer
