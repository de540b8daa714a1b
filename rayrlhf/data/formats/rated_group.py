"""Rows of one rated answer each: those of one prompt are compared with each other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rayrlhf.data.formats.base import GroupedRow
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.pairing import pair_by_score
from rayrlhf.data.ingest.records import Origin, Preference
from rayrlhf.data.ingest.rules import RowRules


class RatedRow(GroupedRow):
    """A row with one answer and its rating."""

    def answer(self) -> str:
        raise NotImplementedError

    def rating(self, rules: RowRules) -> float:
        raise NotImplementedError

    @classmethod
    def group_preferences(
        cls, rows: Sequence[Any], origins: Sequence[Origin], rules: RowRules
    ) -> tuple[list[Preference], dict[int, str], dict[str, int]]:
        """All pairs of a group, or the best with each other; ties and small margins give no pair."""
        ratings = [row.rating(rules) for row in rows]
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
            answers = rows[a].answer(), rows[b].answer()
            pairs.append(Preference(rows[a].prompt_text(), *answers, ratings[a] - ratings[b], origin=origin))
        alone = {
            index: reasons.get(index, "nothing to compare with") for index in range(len(rows)) if index not in used
        }
        return pairs, alone, unmade
