"""kochatgpt PPO and vaiv prompts: `{prompt}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import PromptText


class PromptOnly(Row):
    name: ClassVar[str] = "prompt_only"
    prompt: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)
