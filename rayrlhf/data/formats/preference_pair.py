"""vaiv pairs: `{prompt, chosen, rejected}` with strings."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import Answer, Preference, PromptText, without_end_marker


class PreferencePair(Row):
    name: ClassVar[str] = "preference_pair"
    prompt: str
    chosen: str
    rejected: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def answer(self) -> Answer:
        return Answer(self.prompt_text(), without_end_marker(self.chosen))

    def preference(self) -> Preference:
        return Preference(self.prompt_text(), without_end_marker(self.chosen), without_end_marker(self.rejected))
