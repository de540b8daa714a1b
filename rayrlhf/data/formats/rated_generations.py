"""Argilla and distilabel: `{instruction or prompt or input, generations: […], ratings: […]}`, also `responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import Instructed, Optional
from rayrlhf.data.formats.base import FromCell, pairs_of
from rayrlhf.data.formats.preference_pair import CHOSEN
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.pairing import pairs_of_scores
from rayrlhf.data.ingest.records import Kind, Origin, Preference
from rayrlhf.data.ingest.rules import RowRules


class RatedGenerations(Instructed):
    name: ClassVar[str] = "rated_generations"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    generations: Annotated[list[str | None], FromCell] = Field(
        validation_alias=AliasChoices("generations", "responses"), min_length=1
    )
    ratings: Annotated[list[Optional], FromCell] = Field(validation_alias=AliasChoices("ratings", "rating"))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        """Of a row that has made its pair already, the pair counts."""
        return not cls.missing(value) and value.keys().isdisjoint(CHOSEN)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        if len(self.generations) != len(self.ratings):
            counts = f"{len(self.ratings)} ratings for {len(self.generations)} generations"
            raise Rejected("malformed row", counts)
        rated = zip(self.generations, self.ratings, strict=True)
        scores = [None if text is None else rating for text, rating in rated]
        texts = [text or "" for text in self.generations]
        pairs = pairs_of_scores(scores, rules)
        return pairs_of(self.prompt_text(), texts, pairs, origin, "ratings", scores=scores)
