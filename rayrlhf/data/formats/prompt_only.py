"""kochatgpt PPO and vaiv prompts: `{prompt, input?}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind, PromptText


class PromptOnly(Row):
    name: ClassVar[str] = "prompt_only"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    prompt: str
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt, self.input)
