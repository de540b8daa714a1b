"""UltraFeedback: `{instruction, completions: [{response, overall_score, annotations}, …]}`.

`custom_system_prompt` is each completion's own, made to draw different answers; it is not part of what was asked.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import FromCell, Row, Score, pairs_of
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.pairing import pairs_of_scores
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class RatedCompletion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    response: str
    overall_score: Score | None = None
    annotations: dict[str, Any] | None = None

    def score(self, name: str | None) -> float | None:
        """The overall score, or the rating of an annotation; None where there is none ("N/A")."""
        if name in (None, "overall_score"):
            return self.overall_score
        if name not in (self.annotations or {}):
            known = ", ".join(("overall_score", *(self.annotations or {})))
            raise DataError(f"rules.score: a completion has no {name!r}; it has {known}")
        annotation = (self.annotations or {})[name]
        rating = annotation.get("Rating") if isinstance(annotation, dict) else None
        try:
            return float(rating)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None


class UltraFeedback(Row):
    name: ClassVar[str] = "ultrafeedback"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    instruction: str
    completions: Annotated[list[RatedCompletion], FromCell, Field(min_length=1)]

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.instruction)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        scores = [one.score(rules.score) for one in self.completions]
        texts = [one.response for one in self.completions]
        pairs = pairs_of_scores(scores, rules)
        return pairs_of(self.prompt_text(), texts, pairs, origin, "scores", scores=scores)
