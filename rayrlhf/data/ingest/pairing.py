"""Chosen/rejected pairs from rankings, choices, scores and ratings of several answers. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rayrlhf.data.ingest.account import DataError, Rejected
from rayrlhf.data.ingest.rules import RowRules

VAIV_MIN_SCORE = 20.0
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

    Raises Rejected if both are below `rules.min_score` (20 by default), if they are equal, or if they differ by
    `rules.min_margin` or less.
    """
    _check_not_low(scores, VAIV_MIN_SCORE if rules.min_score is None else rules.min_score)
    return pair_by_score(scores, rules.min_margin)


def pairs_of_scores(scores: Sequence[float | None], rules: RowRules) -> IndexPairs:
    """Pairs of scored answers, best answers first; None is an answer without a score.

    Raises Rejected if no two answers have scores that make a pair by the rules.
    """
    scored = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    if len(scored) < 2:
        raise Rejected("fewer than two scores", f"{len(scored)} of {len(scores)} answers have one")
    pairs: IndexPairs = []
    problem: Rejected | None = None
    for (first, a), (second, b) in itertools.combinations(scored, 2):
        if rules.ranking == "best_vs_rest" and first > scored[0][0]:
            continue
        try:
            if rules.min_score is not None:
                _check_not_low((-first, -second), rules.min_score)
            pair_by_score((-first, -second), rules.min_margin)
        except Rejected as rejection:
            problem = problem or rejection
        else:
            pairs.append((a, b))
    if not pairs:
        assert problem is not None
        raise problem
    return pairs


def _check_not_low(scores: tuple[float, float], min_score: float) -> None:
    if max(scores) < min_score:
        raise Rejected("both scores low", f"{scores[0]:g} and {scores[1]:g}, min_score is {min_score:g}")


def known_margin(better: float | None, worse: float | None, rules: RowRules) -> float:
    """By how much the answer that the data call better is scored higher; 0 if one has no score.

    Raises Rejected if it is scored lower, or higher by no more than a `rules.min_margin` that is set.
    """
    if better is None or worse is None:
        return 0.0
    if better < worse:
        raise Rejected("scores contradict the choice", f"the chosen answer has {better:g}, the rejected one {worse:g}")
    if rules.min_margin and better - worse <= rules.min_margin:
        raise Rejected("margin too small", f"{better - worse:g}, min_margin is {rules.min_margin:g}")
    return better - worse


def pair_by_score(scores: tuple[float, float], min_margin: float) -> tuple[int, int]:
    """(better, worse) of two values. Raises Rejected for a tie and for a difference of `min_margin` or less."""
    difference = scores[0] - scores[1]
    if difference == 0:
        raise Rejected("tie", f"both {scores[0]:g}")
    if abs(difference) <= min_margin:
        raise Rejected("margin too small", f"{abs(difference):g}, min_margin is {min_margin:g}")
    return (0, 1) if difference > 0 else (1, 0)
