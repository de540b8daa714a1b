"""Nectar: `{prompt, answers: [{answer, model, rank}, …]}`; the prompt is a dialogue of `Human:` and `Assistant:`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import FromCell, Row, Whole, pairs_of
from rayrlhf.data.formats.hh_rlhf import SPEAKER, asked_in
from rayrlhf.data.ingest.pairing import pairs_of_ranking
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class RankedAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    answer: str
    rank: Whole | None


class Nectar(Row):
    name: ClassVar[str] = "nectar"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    answers_: Annotated[list[RankedAnswer], FromCell] = Field(alias="answers", min_length=2)

    def prompt_text(self) -> PromptText:
        return asked_in(self.prompt) if SPEAKER.match(self.prompt) else PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        texts, ranks = [one.answer for one in self.answers_], [one.rank for one in self.answers_]
        pairs, notes = pairs_of_ranking(ranks, len(texts), rules, "rank")
        return pairs_of(self.prompt_text(), texts, pairs, origin, "ranking", notes)
