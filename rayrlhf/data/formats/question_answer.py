"""GSM8K and the like: `{question, answer}`; a `context` is what the question is about."""

from __future__ import annotations

import re
from typing import ClassVar

from rayrlhf.data.formats.asked import Conversed
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules

CALCULATION = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")


class QuestionAnswer(Conversed):
    name: ClassVar[str] = "question_answer"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    question: str
    answer: str
    context: str | None = None

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText.of(self.question, self.context))

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        """The answer, without GSM8K's calculator annotations if the rules say so."""
        text = CALCULATION.sub("", self.answer) if rules.calculations == "remove" else self.answer
        return [Answer(self.prompt_text(), text, origin=origin)]
