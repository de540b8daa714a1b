"""DialSummEval: `{id, dialogue, summary, annotations, model_id}`, one summary per row, with all raters' scores."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Annotated, Any, ClassVar

from pydantic import Field

from rayrlhf.data.formats.base import FromCell, GroupedRow, Score
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.pairing import pair_by_score
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class DialSummEval(GroupedRow):
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

    @property
    def mean_rating(self) -> float:
        """Mean over raters and criteria."""
        return fmean(mark for rater in self.annotations for mark in rater.values())

    @classmethod
    def group_preferences(
        cls, rows: Sequence[Any], origins: Sequence[Origin], rules: RowRules
    ) -> tuple[list[Preference], dict[int, str], dict[str, int]]:
        """All pairs of systems of a dialogue, or the best with each other; ties and small margins give no pair."""
        ratings = [row.mean_rating for row in rows]
        order = sorted(range(len(rows)), key=lambda index: -ratings[index])
        pairs = []
        used: set[int] = set()
        reasons: dict[int, str] = {}
        unmade: Counter[str] = Counter()
        for a, b in itertools.combinations(order, 2):
            if rules.ranking == "best_vs_rest" and ratings[a] < ratings[order[0]]:
                continue
            try:
                pair_by_score((ratings[a], ratings[b]), rules.min_margin)
            except Rejected as rejection:
                reasons |= {a: rejection.reason, b: rejection.reason}
                unmade[rejection.reason] += 1
                continue
            used |= {a, b}
            origin = replace(origins[a], siblings=0, rule="ratings")
            pairs.append(Preference(rows[a].prompt_text(), rows[a].summary, rows[b].summary, origin=origin))
        alone = {
            index: reasons.get(index, "nothing to compare with") for index in range(len(rows)) if index not in used
        }
        return pairs, alone, unmade
