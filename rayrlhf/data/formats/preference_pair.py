"""vaiv pairs, and most preference sets: `{prompt, chosen, rejected}` with strings; `input` is a context."""

from __future__ import annotations

from typing import Any, ClassVar

from rayrlhf.data.formats.base import Margin, Row
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class PreferencePair(Row):
    name: ClassVar[str] = "preference_pair"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    chosen: str
    rejected: str
    input: str | None = None
    margin: Margin = 0.0

    @classmethod
    def recognizes(cls, value: dict[str, Any]) -> bool:
        return cls.required() <= value.keys() and not any(isinstance(value[key], list) for key in cls.required())

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt, self.input)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        return [Preference(self.prompt_text(), self.chosen, self.rejected, self.margin, origin=origin)]
