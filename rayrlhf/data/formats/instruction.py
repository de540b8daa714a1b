"""Alpaca, KoAlpaca and vaiv SFT: `{instruction, output, input?}`; `input` may be null."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import Answer, PromptText, without_end_marker


class Instruction(Row):
    name: ClassVar[str] = "instruction"
    instruction: str
    output: str
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.instruction, self.input)

    def answer(self) -> Answer:
        return Answer(self.prompt_text(), without_end_marker(self.output))
