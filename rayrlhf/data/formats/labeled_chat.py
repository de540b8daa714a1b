"""Unpaired feedback on chats: `{messages or conversations, label or kto_tag}` (TRL, LLaMA-Factory); the label is of the
last turn."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import Conversed, Labeled
from rayrlhf.data.formats.base import Turn, Turns
from rayrlhf.data.formats.chat_pair import CHATS, messages_of, split_answer
from rayrlhf.data.ingest.records import PromptText


class LabeledChat(Labeled, Conversed):
    name: ClassVar[str] = "labeled_chat"
    without_label: ClassVar[str] = "chat"
    messages: Annotated[list[Turn], Turns] = Field(validation_alias=AliasChoices(*CHATS))

    def answered(self) -> tuple[PromptText, str]:
        prompt, answer = split_answer(messages_of(self.messages, "assistant"))
        return self.after_all(prompt), answer
