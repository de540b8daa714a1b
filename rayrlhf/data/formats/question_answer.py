"""GSM8K and the like: `{question, answer}`."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.rules import RowRules


class QuestionAnswer(Row):
    name: ClassVar[str] = "question_answer"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    question: str
    answer: str

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.question)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.answer, origin=origin)]
