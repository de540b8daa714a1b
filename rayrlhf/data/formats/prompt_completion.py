"""Most hand-made sets: `{prompt, completion, input?}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class PromptCompletion(Row):
    name: ClassVar[str] = "prompt_completion"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    prompt: str
    completion: str
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt, self.input)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.completion, origin=origin)]
