"""summarize_from_feedback, comparisons: `{info: {post or article}, summaries: [{text}, {text}], choice}`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import FromCell, Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import chosen_index
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class FeedbackText(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    text: str


class FeedbackInfo(BaseModel):
    """The text that was summarized: a forum post or a news article."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    post: str | None = None
    article: str | None = None

    @property
    def text(self) -> str:
        return self.post or self.article or ""


class FeedbackComparison(Row):
    name: ClassVar[str] = "feedback_comparison"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    info: Annotated[FeedbackInfo, FromCell]
    summaries: Annotated[list[FeedbackText], FromCell, Field(min_length=2, max_length=2)]
    choice: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.info.text)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts = [summary.text for summary in self.summaries]
        better = chosen_index(self.choice, len(texts))
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
