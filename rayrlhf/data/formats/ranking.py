"""Rankings of any number of answers: `{prompt, completions: […], ranking: […]}`; rules say what `ranking` is."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rayrlhf.data.formats.base import FromCell, Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import pairs_of_ranking
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class Ranking(Row):
    name: ClassVar[str] = "ranking"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    completions: Annotated[list[str], FromCell, Field(min_length=2)]
    ranking: Annotated[list[Whole | None], FromCell]

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        pairs, notes = pairs_of_ranking(self.ranking, len(self.completions), rules, implied=None)
        return pairs_of(self.prompt_text(), self.completions, pairs, origin, "ranking", notes)
