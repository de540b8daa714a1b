"""Chosen/rejected pairs from rankings, choices, scores and ratings of several answers. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rayrlhf.data.ingest.account import DataError, Rejected
from rayrlhf.data.ingest.rules import RowRules

IndexPairs = list[tuple[int, int]]
"""(better, worse) indices of answers."""


def pairs_of_ranking(
    ranking: Sequence[int | None], num_answers: int, rules: RowRules, implied: str | None, index_base: int | None = None
) -> tuple[IndexPairs, tuple[str, ...]]:
    """(pairs, notes) of a ranking of `num_answers` answers, best answers first; notes say why there are no more pairs.

    Args:
        ranking: indices of answers, best first (`order`; may leave answers out), or each answer's rank, 1 or 0 the
            best (`rank`; ties and None for "not ranked" allowed).
        implied: what `ranking` is by its schema, if that says so; `rules.ranking_is` overrides it.
        index_base: number of the first answer in the schema's column names, for rankings whose values leave it open.

    Raises Rejected for values out of range and for rankings without two ranked answers. Raises DataError for an
    ambiguous ranking: `order` and `rank` agree only where a permutation is its own inverse, and an order may be
    numbered from 0 or from 1. Nothing is guessed.
    """
    named = [value for value in ranking if value is not None]
    known = rules.ranking_base if rules.ranking_base is not None else _base_of(named, num_answers, index_base)
    base = 1 if known is None else known
    if min(named, default=base) < base or max(named, default=base) >= num_answers + base:
        raise Rejected("ranking out of range", f"{list(ranking)} for {num_answers} answers numbered from {base}")
    values = [None if value is None else value - base for value in ranking]
    meaning = rules.ranking_is or implied or _meaning(values, num_answers)
    if meaning == "order":
        if known is None and named:
            raise DataError(
                f"ranking {list(ranking)} of {num_answers} answers could be numbered from 0 or from 1: "
                "set rules.ranking_base"
            )
        levels = _levels_of_order(values, num_answers)
    else:
        if len(values) != num_answers:
            raise Rejected("ranking out of range", f"{len(values)} ranks for {num_answers} answers")
        levels = values
    ranked = sorted((level, index) for index, level in enumerate(levels) if level is not None)
    pairs = [(a, b) for (i, a), (j, b) in itertools.combinations(ranked, 2) if i < j]
    if rules.ranking == "best_vs_rest":
        best = ranked[0][0] if ranked else None
        pairs = [(a, b) for a, b in pairs if levels[a] == best]
    if not pairs:
        raise Rejected("tie" if len(ranked) > 1 else "ranking of fewer than two answers")
    has_tie = len({level for level, _ in ranked}) < len(ranked)
    notes = ("ranking with a tie",) * has_tie + ("incomplete ranking",) * (len(ranked) < num_answers)
    return pairs, notes


def _base_of(named: Sequence[int], num_answers: int, index_base: int | None) -> int | None:
    """0 or 1, from the values or the schema's names; None if neither decides."""
    if 0 in named:
        return 0
    return 1 if num_answers in named else index_base


def _meaning(values: Sequence[int | None], num_answers: int) -> str:
    """`order` or `rank` where only one is possible, `rank` where they agree."""
    if None in values or len(set(values)) < len(values):
        return "rank"  # an order has neither ties nor gaps
    if len(values) < num_answers:
        return "order"
    if all(values[value] == index for index, value in enumerate(values) if value is not None):
        return "rank"  # its own inverse: both agree
    raise DataError(
        f"ranking {list(values)} is ambiguous: an order of answers (best first) and ranks of answers give different "
        "pairs; set rules.ranking_is to order or rank"
    )


def _levels_of_order(values: Sequence[int | None], num_answers: int) -> list[int | None]:
    levels: list[int | None] = [None] * num_answers
    for level, index in enumerate(values):
        if index is None:
            continue
        if levels[index] is not None:
            raise Rejected("ranking out of range", f"answer {index} is in the order twice")
        levels[index] = level
    return levels


def chosen_index(choice: int, num_answers: int) -> int:
    """`choice` as an index. Raises Rejected if there is no such answer."""
    if not 0 <= choice < num_answers:
        raise Rejected("choice out of range", f"{choice}, of {num_answers} answers numbered from 0")
    return choice


def better_of_scores(scores: tuple[float, float], rules: RowRules) -> tuple[int, int]:
    """(better, worse) of two scored answers.

    Raises Rejected if both are below `rules.min_score`, if they are equal, or if they differ by `rules.min_margin` or
    less.
    """
    if max(scores) < rules.min_score:
        raise Rejected("both scores low", f"{scores[0]:g} and {scores[1]:g}, min_score is {rules.min_score:g}")
    return pair_by_score(scores, rules.min_margin)


def pair_by_score(scores: tuple[float, float], min_margin: float) -> tuple[int, int]:
    """(better, worse) of two values. Raises Rejected for a tie and for a difference of `min_margin` or less."""
    difference = scores[0] - scores[1]
    if difference == 0:
        raise Rejected("tie", f"both {scores[0]:g}")
    if abs(difference) <= min_margin:
        raise Rejected("margin too small", f"{abs(difference):g}, min_margin is {min_margin:g}")
    return (0, 1) if difference > 0 else (1, 0)
