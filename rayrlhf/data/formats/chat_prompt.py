"""Prompts of several messages: `{prompt: [{role, content}, …]}`, TRL's conversational prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.formats.base import Turn
from rayrlhf.data.formats.chat_pair import MessagesCell, holds_messages
from rayrlhf.data.ingest.records import Kind, PromptText


class ChatPrompt(Conversed):
    name: ClassVar[str] = "chat_prompt"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    prompt: Annotated[list[Turn], MessagesCell, Field(min_length=1)]

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return holds_messages(value.get("prompt"))

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText(tuple(turn.message() for turn in self.prompt)))
