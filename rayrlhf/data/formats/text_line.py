"""A plain text file of one prompt per line, like kochatgpt's seed data."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind, PromptText


class TextLine(Row):
    name: ClassVar[str] = "text_line"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    text: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.text)
