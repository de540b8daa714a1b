"""A plain text file of one prompt per line, like kochatgpt's seed data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind, PromptText


class TextLine(Row):
    name: ClassVar[str] = "text_line"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    line: str = Field(validation_alias=AliasChoices("line", "text"))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        """A column `text` may be anything (see `text`): it is a prompt only if this format is named."""
        return "line" in value

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.line)
