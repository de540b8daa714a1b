"""kochatgpt PPO and vaiv prompts: `{prompt, input?}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.formats.chat_pair import holds_messages
from rayrlhf.data.ingest.records import Kind, PromptText


class PromptOnly(Conversed):
    name: ClassVar[str] = "prompt_only"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    prompt: str
    input: str | None = None

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return not cls.missing(value) and not holds_messages(value["prompt"])

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText.of(self.prompt, self.input))
