"""Rankings, choices and scores as pairs, against oracles that say it more slowly."""

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.data.ingest.account import DataError, Rejected
from rayrlhf.data.ingest.pairing import better_of_scores, chosen_index, pair_by_score, pairs_of_ranking
from rayrlhf.data.ingest.rules import RowRules

ORDER, RANK = RowRules(ranking_is="order"), RowRules(ranking_is="rank")
THREE_CYCLES = {(1, 2, 0), (2, 0, 1)}


def pairs(ranking, num_answers=3, rules=ORDER, implied=None, index_base=None):
    return pairs_of_ranking(ranking, num_answers, rules, implied, index_base)[0]


def notes(ranking, num_answers=3, rules=RANK):
    return pairs_of_ranking(ranking, num_answers, rules, None)[1]


def reason(ranking, num_answers=3, rules=ORDER, implied=None) -> str:
    with pytest.raises(Rejected) as rejection:
        pairs(ranking, num_answers, rules, implied)
    return rejection.value.reason


# order and rank


def test_order_and_rank_agree_but_on_the_two_three_cycles_in_4_of_18_pairs():
    differing, total = {}, 0
    for permutation in permutations(range(3)):
        # By the meaning of the words: an order has the better of two answers earlier, ranks give it the lower number.
        by_order = {(a, b) for a, b in permutations(range(3), 2) if permutation.index(a) < permutation.index(b)}
        by_rank = {(a, b) for a, b in permutations(range(3), 2) if permutation[a] < permutation[b]}
        assert set(pairs(permutation, rules=ORDER)) == by_order
        assert set(pairs(permutation, rules=RANK)) == by_rank
        assert len(by_order) == len(pairs(permutation)) == 3
        total += 3
        if by_order != by_rank:
            differing[permutation] = len(by_order - by_rank)
    assert set(differing) == THREE_CYCLES
    assert (sum(differing.values()), total) == (4, 18)


@pytest.mark.parametrize("cycle", sorted(THREE_CYCLES))
@pytest.mark.parametrize("base", [0, 1])
def test_nothing_is_guessed_for_a_permutation_that_is_not_its_own_inverse(cycle, base):
    ranking = [value + base for value in cycle]
    with pytest.raises(DataError, match=r"set rules\.ranking_is to order or rank"):
        pairs(ranking, rules=RowRules())
    assert pairs(ranking, rules=RowRules(), implied="order") == pairs(cycle, rules=ORDER)
    assert pairs(ranking, rules=RowRules(), implied="rank") == pairs(cycle, rules=RANK)


def test_the_setting_goes_before_what_the_schema_implies():
    assert pairs([2, 0, 1], rules=RANK, implied="order") == pairs([2, 0, 1], rules=RANK) == [(1, 2), (1, 0), (2, 0)]


@pytest.mark.parametrize("ranking", sorted(set(permutations(range(3))) - THREE_CYCLES))
def test_a_permutation_that_is_its_own_inverse_needs_no_setting(ranking):
    assert pairs(ranking, rules=RowRules()) == pairs(ranking, rules=ORDER) == pairs(ranking, rules=RANK)


@pytest.mark.parametrize("setting", ["order", "rank"])
def test_all_pairs_gives_three_and_best_vs_rest_two_with_the_best_answer_first(setting):
    for permutation in permutations(range(3)):
        best = permutation[0] if setting == "order" else permutation.index(0)
        everything = pairs(permutation, rules=RowRules(ranking_is=setting))
        of_best = pairs(permutation, rules=RowRules(ranking_is=setting, ranking="best_vs_rest"))
        assert (len(everything), len(of_best)) == (3, 2)
        assert {better for better, _ in of_best} == {best}
        assert everything[:2] == of_best


# numbering


@given(st.permutations(range(5)), st.sampled_from(["order", "rank"]))
def test_counting_from_one_changes_nothing(ranking, setting):
    rules = RowRules(ranking_is=setting)
    assert pairs([value + 1 for value in ranking], 5, rules) == pairs(ranking, 5, rules)


def test_a_stated_base_refuses_what_the_other_one_has():
    from_one = RowRules(ranking_is="order", ranking_base=1)
    assert reason([0, 1, 2], rules=from_one) == "ranking out of range"
    assert pairs([1, 2, 3], rules=from_one) == [(0, 1), (0, 2), (1, 2)]
    assert reason([1, 2, 3], rules=RowRules(ranking_is="order", ranking_base=0)) == "ranking out of range"


def test_an_order_that_could_be_numbered_either_way_is_not_guessed():
    with pytest.raises(DataError, match=r"ranking \[1, 2\] of 3 answers .* set rules\.ranking_base"):
        pairs([1, 2])
    assert pairs([1, 2], rules=RowRules(ranking_is="order", ranking_base=0)) == [(1, 2)]
    assert pairs([1, 2], rules=RowRules(ranking_is="order", ranking_base=1)) == [(0, 1)]
    assert pairs([1, 2], index_base=0) == [(1, 2)]
    assert pairs([0, 2]) == [(0, 2)]
    assert pairs([3, 1], index_base=0) == [(2, 0)]


@pytest.mark.parametrize("ranking", [[0, 1, 3], [-1, 0, 1], [1, 2, 4], [0, 2, 3], [10**30, 0, 1], [7], [0, None, 3]])
@pytest.mark.parametrize("rules", [ORDER, RANK, RowRules()])
def test_a_value_out_of_range_is_rejected(ranking, rules):
    assert reason(ranking, rules=rules) == "ranking out of range"


# ties, and answers that are not ranked


def test_ties_make_no_pair_and_are_noted():
    assert pairs([1, 2, 2], rules=RANK) == [(0, 1), (0, 2)]
    assert pairs([1, 1, 2], rules=RowRules()) == [(0, 2), (1, 2)]
    assert pairs([0, 0, 1], rules=RowRules(ranking="best_vs_rest")) == [(0, 2), (1, 2)]
    assert notes([1, 2, 2]) == ("ranking with a tie",)
    assert notes([1, 2, 3]) == ()


@pytest.mark.parametrize("ranking", [[1, 1, 1], [0, 0, 0], [None, 2, 2]])
def test_a_ranking_of_equals_is_a_tie(ranking):
    assert reason(ranking, rules=RANK) == "tie"


def test_answers_that_are_not_ranked_are_in_no_pair_and_noted():
    assert pairs([2, None, 1], rules=RANK) == [(2, 0)]
    assert pairs([2, None, 1], rules=RowRules()) == [(2, 0)]
    assert pairs([2, 0], rules=RowRules()) == [(2, 0)]  # fewer values than answers can only be an order
    assert pairs([2, None, 0], rules=ORDER) == [(2, 0)]
    assert notes([2, None, 1]) == notes([2, 0], rules=ORDER) == ("incomplete ranking",)
    assert notes([1, None, 1, 2], 4) == ("ranking with a tie", "incomplete ranking")


@pytest.mark.parametrize("ranking", [[], [None, None, None], [2, None, None], [0]])
@pytest.mark.parametrize("base", [0, 1])
def test_fewer_than_two_ranked_answers_are_no_ranking(ranking, base):
    shifted = [None if value is None else value + base for value in ranking]
    rules = RowRules(ranking_is="rank" if len(ranking) == 3 else "order", ranking_base=base)
    assert reason(shifted, rules=rules) == "ranking of fewer than two answers"


def test_an_order_that_names_an_answer_twice_is_rejected_and_so_are_ranks_that_are_too_few_or_too_many():
    assert reason([0, 0, 1]) == "ranking out of range"
    assert reason([0, 1], rules=RANK) == "ranking out of range"
    assert reason([0, 1, 2, 2], rules=RANK) == "ranking out of range"
    assert reason([0, 1, 2, 2], rules=RowRules()) == "ranking out of range"


# any number of answers, against brute force


@st.composite
def orders(draw):
    """(number of answers, an order of some of them from 0, base)."""
    num_answers = draw(st.integers(2, 6))
    order = draw(st.permutations(range(num_answers)))[: draw(st.integers(2, num_answers))]
    return num_answers, list(order), draw(st.integers(0, 1))


@given(orders(), st.sampled_from(["all_pairs", "best_vs_rest"]))
def test_an_order_pairs_each_answer_with_all_that_stand_behind_it(case, which):
    num_answers, order, base = case
    rules = RowRules(ranking=which, ranking_is="order", ranking_base=base)
    found = pairs([index + base for index in order], num_answers, rules)
    wanted = {(order[i], order[j]) for i in range(len(order)) for j in range(len(order)) if i < j}
    if which == "best_vs_rest":
        wanted = {(order[0], other) for other in order[1:]}
    assert set(found) == wanted
    assert len(found) == len(wanted)


@settings(max_examples=150)
@given(st.data(), st.integers(2, 6), st.integers(0, 1), st.sampled_from(["all_pairs", "best_vs_rest"]))
def test_ranks_pair_each_answer_with_all_of_a_larger_number(data, num_answers, base, which):
    ranks = data.draw(st.lists(st.none() | st.integers(0, num_answers - 1), min_size=num_answers, max_size=num_answers))
    rules = RowRules(ranking=which, ranking_is="rank", ranking_base=base)
    ranked = [index for index in range(num_answers) if ranks[index] is not None]
    wanted = {(a, b) for a, b in permutations(ranked, 2) if ranks[a] < ranks[b]}
    if which == "best_vs_rest":
        wanted = {(a, b) for a, b in wanted if all(ranks[a] <= ranks[c] for c in ranked)}
    written = [None if rank is None else rank + base for rank in ranks]
    if not wanted:
        assert reason(written, num_answers, rules) == (
            "tie" if len(ranked) > 1 else "ranking of fewer than two answers"
        )
        return
    found, why = pairs_of_ranking(written, num_answers, rules, None)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert ("ranking with a tie" in why) == any(ranks[a] == ranks[b] for a, b in combinations(ranked, 2))
    assert ("incomplete ranking" in why) == (len(ranked) < num_answers)


def test_what_is_inferred_is_right_under_both_meanings_or_refused():
    refused = 0
    for ranking in permutations(range(5)):
        by_order, by_rank = pairs(ranking, 5, ORDER), pairs(ranking, 5, RANK)
        if set(by_order) == set(by_rank):
            assert pairs(ranking, 5, RowRules()) == by_rank
        else:
            refused += 1
            with pytest.raises(DataError):
                pairs(ranking, 5, RowRules())
    assert refused == 120 - 26  # so many permutations of five are their own inverse


# choices and scores


def test_a_choice_is_an_index_of_an_answer():
    assert [chosen_index(choice, 2) for choice in (0, 1)] == [0, 1]
    for choice in (-1, 2, 10**30):
        with pytest.raises(Rejected, match="choice out of range"):
            chosen_index(choice, 2)


SCORES = st.integers(0, 40) | st.sampled_from([19.5, 20.0, 20.5])


@given(SCORES, SCORES, st.sampled_from([0.0, 1.0, 2.5]))
def test_the_higher_score_wins_unless_both_are_low_equal_or_too_close(first, second, margin):
    rules = RowRules(min_score=20, min_margin=margin)
    low = first < 20 and second < 20
    if low or first == second or abs(first - second) <= margin:
        with pytest.raises(Rejected) as rejection:
            better_of_scores((first, second), rules)
        wanted = "both scores low" if low else "tie" if first == second else "margin too small"
        assert rejection.value.reason == wanted
    else:
        assert better_of_scores((first, second), rules) == ((0, 1) if first > second else (1, 0))


def test_one_score_at_the_limit_is_enough():
    assert better_of_scores((20, 3), RowRules()) == (0, 1)
    with pytest.raises(Rejected, match="both scores low"):
        better_of_scores((19, 19), RowRules())
    assert better_of_scores((19, 18), RowRules(min_score=19)) == (0, 1)


def test_a_tie_is_no_pair_whatever_the_margin():
    with pytest.raises(Rejected, match="tie"):
        pair_by_score((3.5, 3.5), 0)
