"""Chats: `{messages: [{role, content}, …]}`. A last assistant message is the answer; without one it is a prompt."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import Answer, Message, PromptText


class Turn(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str


class Chat(Row):
    name: ClassVar[str] = "chat"
    messages: list[Turn] = Field(min_length=1)

    def prompt_text(self) -> PromptText:
        turns = self.messages[:-1] if self.messages[-1].role == "assistant" else self.messages
        return PromptText(tuple(Message(turn.role, turn.content) for turn in turns))

    def answer(self) -> Answer | None:
        last = self.messages[-1]
        return Answer(self.prompt_text(), last.content) if last.role == "assistant" else None
