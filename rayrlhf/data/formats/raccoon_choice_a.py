"""raccoon choice A: `{article, abstract: [{text}, {text}], choice}`; `choice` is the index of the better."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import FromCell, Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import chosen_index
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Abstract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    text: str


class RaccoonChoiceA(Row):
    name: ClassVar[str] = "raccoon_choice_a"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    article: str
    abstract: Annotated[list[Abstract], FromCell, Field(min_length=2, max_length=2)]
    choice: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.article)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts = [abstract.text for abstract in self.abstract]
        better = chosen_index(self.choice, len(texts))
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
