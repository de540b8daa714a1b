"""kochatgpt SFT, and most hand-made sets: `{prompt, completion}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import Answer, PromptText, without_end_marker


class PromptCompletion(Row):
    name: ClassVar[str] = "prompt_completion"
    prompt: str
    completion: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def answer(self) -> Answer:
        return Answer(self.prompt_text(), without_end_marker(self.completion))
