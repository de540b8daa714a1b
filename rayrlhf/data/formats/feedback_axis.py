"""summarize_from_feedback, axis evaluations: `{info: {post or article}, summary: {text}}`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from rayrlhf.data.formats.base import FromCell, Row
from rayrlhf.data.formats.feedback_comparison import FeedbackInfo, FeedbackText
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules


class FeedbackAxis(Row):
    name: ClassVar[str] = "feedback_axis"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    info: Annotated[FeedbackInfo, FromCell]
    summary: Annotated[FeedbackText, FromCell]

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.info.text)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.summary.text, origin=origin)]
