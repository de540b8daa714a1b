"""Chats: `{messages: [{role, content}, …]}`, ShareGPT's `{conversations: [{from, value}, …]}`, kochatgpt's texts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.formats.base import Turn, Turns, several
from rayrlhf.data.formats.chat_pair import CHATS
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Chat(Conversed):
    name: ClassVar[str] = "chat"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    messages: Annotated[list[Turn], Turns] = Field(validation_alias=AliasChoices(*CHATS), min_length=1)

    def prompt_text(self) -> PromptText:
        """All messages before the final assistant turn; the whole chat if it ends with another role."""
        turns = self.messages[:-1] if self.messages[-1].role == "assistant" else self.messages
        return self.after_all(PromptText(tuple(turn.message() for turn in turns)))

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        messages = tuple(turn.message() for turn in self.messages)
        ends = [at for at, message in enumerate(messages) if message.role == "assistant" and at > 0]
        if rules.turns == "last":
            ends = [at for at in ends[-1:] if at == len(messages) - 1]
        if not ends:
            raise Rejected("no answer at the end", "the chat has no assistant turn to train on")
        own = several(origin, len(ends))
        return [Answer(self.after_all(PromptText(messages[:at])), messages[at].content, origin=own) for at in ends]
