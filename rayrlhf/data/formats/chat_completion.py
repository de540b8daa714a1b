"""Messages in two columns: `{prompt: [{role, content}, …], completion: [{role, content}]}` (TRL); one may be text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import ANSWERS, Conversed
from rayrlhf.data.formats.base import first_of
from rayrlhf.data.formats.chat_pair import Said, holds_messages, messages_of, split_answer
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class ChatCompletion(Conversed):
    name: ClassVar[str] = "chat_completion"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    prompt: Said
    completion: Said = Field(validation_alias=AliasChoices(*ANSWERS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        sides = (value.get("prompt"), first_of(value, ANSWERS))
        return not cls.missing(value) and any(map(holds_messages, sides))

    def prompt_text(self) -> PromptText:
        return self._parts()[0]

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(*self._parts(), origin=origin)]

    def _parts(self) -> tuple[PromptText, str]:
        prompt, answer = split_answer((*messages_of(self.prompt, "user"), *messages_of(self.completion, "assistant")))
        return self.after_all(prompt), answer
