"""kochatgpt SFT: `{prompt, completion, tokens}`; completions may start with a stray `'` and hold literal `\\n`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class KochatgptSFT(Row):
    name: ClassVar[str] = "kochatgpt_sft"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    prompt: str
    completion: str
    tokens: Any

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        """The completion with its stray marks fixed; each fix is noted."""
        text, notes = self.completion, []
        if text.startswith("'") and text.count("'") % 2:  # a quote that is never closed
            text = text[1:]
            notes.append("stray quote removed")
        if "\\n" in text:
            text = text.replace("\\n", "\n")
            notes.append("literal \\n made a line break")
        return [Answer(self.prompt_text(), text, origin=replace(origin, notes=tuple(notes)) if notes else origin)]
