"""WebGPT comparisons: `{question: {full_text}, answer_0, answer_1, score_0, score_1}`; scores from -1 to 1."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict

from rayrlhf.data.formats.base import FromCell, Row, Score, pairs_of
from rayrlhf.data.ingest.pairing import pairs_of_scores
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class WebQuestion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    full_text: str


class WebGpt(Row):
    name: ClassVar[str] = "webgpt"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    question: Annotated[WebQuestion, FromCell]
    answer_0: str
    answer_1: str
    score_0: Score
    score_1: Score

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.question.full_text)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts, scores = (self.answer_0, self.answer_1), (self.score_0, self.score_1)
        return pairs_of(self.prompt_text(), texts, pairs_of_scores(scores, rules), origin, "scores", scores=scores)
