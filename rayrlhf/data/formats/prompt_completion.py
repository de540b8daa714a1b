"""Most hand-made sets: `{prompt, completion, input?}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.formats.chat_pair import holds_messages
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class PromptCompletion(Conversed):
    name: ClassVar[str] = "prompt_completion"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    prompt: str
    completion: str
    input: str | None = None

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return not cls.missing(value) and not any(holds_messages(value[name]) for name in ("prompt", "completion"))

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText.of(self.prompt, self.input))

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.completion, origin=origin)]
