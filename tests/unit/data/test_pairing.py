"""Rankings and scores as pairs."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.account import DataError, Rejected
from rayrlhf.data.pairing import better_of_scores, chosen_index, pairs_of_ranking
from rayrlhf.data.rules import RowRules

PLAIN = RowRules()
ORDER, RANK = RowRules(ranking_is="order"), RowRules(ranking_is="rank")


def pairs(ranking, rules=PLAIN, num_answers=None, implied=None):
    return pairs_of_ranking(ranking, num_answers or len(ranking), rules, implied)[0]


def test_order_and_rank_disagree_on_the_two_3_cycles_in_4_of_18_pairs():
    differing = {p: set(pairs(p, ORDER)) - set(pairs(p, RANK)) for p in itertools.permutations(range(3))}
    assert {p for p, pairs_ in differing.items() if pairs_} == {(1, 2, 0), (2, 0, 1)}
    assert sum(map(len, differing.values())) == 4


@given(st.permutations(range(5)))
def test_an_order_means_each_answer_beats_those_after_it(order):
    assert set(pairs(order, ORDER)) == set(itertools.combinations(order, 2))
    best = RowRules(ranking="best_vs_rest", ranking_is="order")
    assert set(pairs(order, best)) == {(order[0], other) for other in order[1:]}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_ranks_mean_each_answer_beats_those_of_a_higher_rank(ranks):
    expected = {(a, b) for a, b in itertools.permutations(range(len(ranks)), 2) if ranks[a] < ranks[b]}
    try:
        assert set(pairs([min(r, len(ranks)) for r in ranks], RANK)) == {
            (a, b) for a, b in expected if min(ranks[a], len(ranks)) < min(ranks[b], len(ranks))
        }
    except Rejected as rejection:
        assert rejection.reason == "tie"
        assert len({min(r, len(ranks)) for r in ranks}) == 1


@pytest.mark.parametrize("cycle", [[1, 2, 0], [2, 0, 1], [2, 3, 1]])
def test_a_cycle_is_never_guessed(cycle):
    with pytest.raises(DataError, match=r"rules\.ranking_is"):
        pairs(cycle)
    assert pairs(cycle, implied="order") == pairs(cycle, ORDER)


def test_numbering_from_one_means_the_same():
    for order in itertools.permutations(range(3)):
        assert pairs([i + 1 for i in order], ORDER) == pairs(order, ORDER)


def test_incomplete_rankings_leave_answers_out():
    assert pairs([2, 0], ORDER, num_answers=3) == [(2, 0)]
    assert pairs([1, None, 2], RANK) == [(0, 2)]
    assert pairs_of_ranking([2, 0], 3, ORDER, None)[1] == ("incomplete ranking",)


@pytest.mark.parametrize(
    ("ranking", "rules"), [([0, 3, 1], ORDER), ([0, 0, 1], ORDER), ([-1, 0, 1], ORDER), ([1, 2], RANK)]
)
def test_a_ranking_of_answers_that_are_not_there_is_rejected(ranking, rules):
    with pytest.raises(Rejected) as rejection:
        pairs(ranking, rules, num_answers=3)
    assert rejection.value.reason == "ranking out of range"


def test_scores_below_the_threshold_and_ties_make_no_pair():
    assert better_of_scores((25, 19), RowRules()) == (0, 1)
    assert better_of_scores((10, 20), RowRules()) == (1, 0)
    for scores, reason in (((19, 18), "both scores low"), ((22, 22), "tie")):
        with pytest.raises(Rejected) as rejection:
            better_of_scores(scores, RowRules())
        assert rejection.value.reason == reason
    with pytest.raises(Rejected, match="margin too small"):
        better_of_scores((22, 21), RowRules(min_margin=1))


def test_a_choice_is_an_index():
    assert chosen_index(1, 2) == 1
    with pytest.raises(Rejected):
        chosen_index(2, 2)
