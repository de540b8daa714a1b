"""Alpaca, KoAlpaca and vaiv SFT: `{instruction, output, input?}`; LLaMA-Factory's `system`, `history`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Instruction(Conversed):
    name: ClassVar[str] = "instruction"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    instruction: str
    output: str
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText.of(self.instruction, self.input))

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.output, origin=origin)]
