"""raccoon RLHF: `{original_text}`, texts to summarize."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind, PromptText


class RaccoonPrompts(Row):
    name: ClassVar[str] = "raccoon_prompts"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    original_text: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.original_text)
