"""Alpaca, KoAlpaca and vaiv SFT: `{instruction, output, input?}`; `input` may be null."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Instruction(Row):
    name: ClassVar[str] = "instruction"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    instruction: str
    output: str
    input: str | None = None

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.instruction, self.input)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.output, origin=origin)]
