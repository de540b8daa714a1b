"""DialSummEval: `{id, dialogue, summary, annotations, model_id}`, one summary per row, with all raters' scores."""

from __future__ import annotations

from statistics import fmean
from typing import Annotated, ClassVar

from pydantic import Field

from rayrlhf.data.formats.base import FromCell, Score
from rayrlhf.data.formats.rated_group import RatedRow
from rayrlhf.data.ingest.records import Kind, PromptText
from rayrlhf.data.ingest.rules import RowRules


class DialSummEval(RatedRow):
    name: ClassVar[str] = "dialsummeval"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "prompts")
    id: str
    dialogue: str
    summary: str
    annotations: Annotated[list[Annotated[dict[str, Score], Field(min_length=1)]], FromCell, Field(min_length=1)]
    """For each rater, criterion → score."""

    def group_key(self) -> str:
        return f"{self.id}\x1f{self.dialogue}"

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.dialogue)

    def answer(self) -> str:
        return self.summary

    def rating(self, rules: RowRules) -> float:
        """Mean over raters and criteria."""
        return fmean(mark for rater in self.annotations for mark in rater.values())
