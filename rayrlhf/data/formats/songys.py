"""The songys chat set: CSV with `Q,A,label`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Songys(Row):
    name: ClassVar[str] = "songys"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    Q: str
    A: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.Q)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.A, origin=origin)]
