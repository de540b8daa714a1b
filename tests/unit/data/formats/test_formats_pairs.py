"""Rows that say which of several answers is better: choices, scores, rankings and tables of ratings."""

import json
from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.records import Preference, PromptText

CHOICE_A = {"article": "x", "abstract": [{"text": "a"}, {"text": "b"}], "choice": 0}
CHOICE_B = {"original_text": "x", "summarize_0": "a", "summarize_1": "b", "choice": 0}
COMPARISON = {"info": {"post": "x"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}
SCORED = {"prompt": "p", "response1": "low", "scores1": [3] * 6, "sum1": 18, "response2": "high", "sum2": 24}
RANKED = {"prompt": "p", "completion_0": "a", "completion_1": "b", "completion_2": "c", "ranking": [2, 0, 1]}
LISTED = {"prompt": "p", "completions": ["a", "b", "c", "d"], "ranking": [2, 1, 4, 4]}


# choices, rankings and scores that are none


@pytest.mark.parametrize("row", [CHOICE_A, CHOICE_B, COMPARISON])
@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (2, "choice out of range"),
        (-1, "choice out of range"),
        (10**30, "choice out of range"),
        (None, "wrong type: choice"),
        (True, "wrong type: choice"),
        (0.5, "wrong type: choice"),
        ("b", "wrong type: choice"),
        (float("nan"), "wrong type: choice"),
    ],
)
def test_a_choice_that_is_no_index_is_rejected(file, read, row, choice, reason):
    done = read(file([row, row | {"choice": choice}, row | {"choice": "1"}, row | {"choice": 1.0}]), "preferences")
    assert done.reasons == [(2, reason)]
    assert len(done.records) == 3


def test_two_answers_are_needed_for_a_choice(file, read):
    row = CHOICE_A
    rows = [row, row | {"abstract": [{"text": "a"}]}, row | {"abstract": [{"text": "a"}] * 3}, row | {"abstract": [{}]}]
    done = read(file(rows), "preferences")
    assert done.reasons == [(2, "malformed row"), (3, "malformed row"), (4, "missing column: abstract.text")]


@pytest.mark.parametrize("score", [None, True, "much", float("nan"), float("inf"), [3]])
def test_a_score_that_is_no_number_is_rejected(file, read, score):
    row = SCORED
    assert read(file([row, row | {"sum2": score}]), "preferences").reasons == [(2, "wrong type: sum2")]


def test_scores_follow_the_rules_of_the_source(file, read):
    row = SCORED
    rows = [row | {"sum1": first, "sum2": second} for first, second in [(19, 18), (25, 25), (25, 24), (30, 20.5)]]
    assert read(file(rows), "preferences").reasons == [(1, "both scores low"), (2, "tie")]
    strict = read(file(rows), "preferences", rules={"min_score": 10, "min_margin": 1})
    assert strict.reasons == [(1, "margin too small"), (2, "tie"), (3, "margin too small")]
    assert [record.origin.rule for record in strict.records] == ["scores"]


# rankings


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("base", [0, 1])
def test_completions_and_ranking_of_kochatgpt_may_count_from_nought_or_one(file, read, first, base):
    row = {f"completion_{first + index}": text for index, text in enumerate("abc")}
    row |= {"prompt": "p", "ranking": [index + base for index in (2, 0, 1)]}
    done = read(file([row]), "preferences")
    assert [record.answers for record in done.records] == [("c", "a"), ("c", "b"), ("a", "b")]
    assert {record.origin.siblings for record in done.records} == {3}
    assert {record.origin.rule for record in done.records} == {"ranking"}


def test_an_order_of_some_completions_counts_as_their_names_do(file, read):
    for first in (0, 1):
        row = {f"completion_{first + index}": text for index, text in enumerate("abc")}
        done = read(file([row | {"prompt": "p", "ranking": [2, 1]}]), "preferences")
        assert [record.answers for record in done.records] == [("c", "b") if first == 0 else ("b", "a")]
        assert done.account.notes == {"incomplete ranking": 1}


def test_completions_are_taken_by_number_and_none_may_lack(file, read):
    good = {"prompt": "p", "ranking": list(range(11)), **{f"completion_{n}": str(n) for n in reversed(range(11))}}
    (best, *_) = read(file([good]), "preferences", rules={"ranking": "best_vs_rest"}).records
    assert best.answers == ("0", "1")
    gap = {key: value for key, value in good.items() if key != "completion_4"}
    late = {"prompt": "p", "ranking": [0, 1], "completion_2": "a", "completion_3": "b"}
    done = read(file([good, gap, late]), "preferences")
    assert done.reasons == [(2, "missing column: completion_4"), (3, "missing column: completion_1")]


@pytest.mark.parametrize(
    ("ranking", "reason"),
    [
        ([0, 1, 3], "ranking out of range"),
        ([0, 0, 1], "ranking out of range"),
        ([], "ranking of fewer than two answers"),
        ([0, "x", 1], "wrong type: ranking"),
        ([0, True, 2], "wrong type: ranking"),
        ([0, 1.5, 2], "wrong type: ranking"),
        ("2,0,1", "wrong type: ranking"),
        (None, "wrong type: ranking"),
    ],
)
def test_a_ranking_that_is_none_is_rejected(file, read, ranking, reason):
    row = RANKED
    done = read(file([row, row | {"ranking": ranking}, row | {"ranking": [2.0, 0.0, 1.0]}]), "preferences")
    assert done.reasons == [(2, reason)]
    assert len(done.records) == 6


def test_a_ranking_that_could_mean_two_things_stops_with_its_place_and_the_setting(file, read):
    row = LISTED
    path = file([row, row | {"completions": ["a", "b", "c"], "ranking": [2, 3, 1]}])
    with pytest.raises(DataError) as error:
        read(path, "preferences")
    assert str(error.value).startswith(f"{path}, line 2: ranking [1, 2, 0] is ambiguous: an order")
    assert "rules.ranking_is" in str(error.value)
    done = read(path, "preferences", rules={"ranking_is": "rank", "ranking": "best_vs_rest"})
    assert [record.answers for record in done.records[3:]] == [("c", "a"), ("c", "b")]
    assert done.account.notes == {"ranking with a tie": 1}


# tables of ratings


def rated(dialogue, system, *marks) -> dict:
    """A row of DialSummEval: one mapping of marks a rater."""
    return {"id": dialogue, "dialogue": f"talk {dialogue}", "summary": system, "annotations": list(marks)}


def test_systems_are_compared_within_their_dialogue_by_the_mean_of_all_marks(file, read):
    rows = [
        rated("1", "poor", {"coherence": 1, "fluency": 2}, {"coherence": 2, "fluency": 1}),
        rated("2", "alone", {"coherence": 5}),
        rated("1", "fine", {"coherence": 5, "fluency": 4}, {"coherence": 4, "fluency": 5}),
        rated("1", "same", {"coherence": 1, "fluency": 1}, {"coherence": 2, "fluency": 2}),
    ]
    done = read(file(rows), "preferences")
    talk = PromptText.of("talk 1")
    assert done.records == [Preference(talk, "fine", "poor", 3), Preference(talk, "fine", "same", 3)]
    assert done.reasons == [(2, "nothing to compare with")]
    assert (done.account.kept, done.account.notes) == (3, {"pairs not made: tie": 1})
    assert {(record.origin.place, record.origin.rule, record.origin.siblings) for record in done.records} == {
        (3, "ratings", 0)
    }


def test_dialogues_of_one_id_and_different_texts_are_not_mixed(file, read):
    rows = [
        rated("1", "a", {"c": 1}),
        rated("1", "b", {"c": 2}),
        rated("1", "c", {"c": 3}) | {"dialogue": "another talk"},
    ]
    done = read(file(rows), "preferences")
    assert [record.answers for record in done.records] == [("b", "a")]
    assert done.reasons == [(3, "nothing to compare with")]


def test_rows_of_a_dialogue_that_all_tie_are_rejected_as_ties(file, read):
    rows = [rated("1", text, {"c": 3}) for text in "ab"] + [
        rated("2", text, {"c": mark}) for mark, text in ((1, "a"), (2, "b"))
    ]
    done = read(file(rows), "preferences")
    assert done.reasons == [(1, "tie"), (2, "tie")]


@pytest.mark.parametrize(
    "marks", [[], [{}], [{"c": None}], [{"c": True}], [{"c": "good"}], [3], "good", [{"c": float("nan")}]]
)
def test_marks_that_are_none_are_rejected(file, read, marks):
    rows = [rated("1", "a", {"c": 1}), rated("1", "b", {"c": 2}), rated("1", "c") | {"annotations": marks}]
    done = read(file(rows), "preferences")
    ((place, reason),) = done.reasons
    assert place == 3
    assert reason == ("malformed row" if marks in ([], [{}]) else "wrong type: annotations")
    assert len(done.records) == 1


MARKS = st.lists(st.fixed_dictionaries({"a": st.integers(1, 5), "b": st.integers(1, 5)}), min_size=1, max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from("12"), MARKS), min_size=2, max_size=12),
    st.sampled_from([0, 0.5, 1]),
    st.sampled_from(["all_pairs", "best_vs_rest"]),
)
def test_ratings_give_the_pairs_that_brute_force_gives(tmp_path_factory, read, systems, margin, which):
    rows = [rated(dialogue, f"s{at}", *marks) for at, (dialogue, marks) in enumerate(systems)]
    means = [mean(mark for rater in marks for mark in rater.values()) for _, marks in systems]
    wanted, ties, close = set(), 0, 0
    for a, b in combinations(range(len(rows)), 2):
        best = max(value for value, (dialogue, _) in zip(means, systems, strict=True) if dialogue == systems[a][0])
        if systems[a][0] != systems[b][0] or (which == "best_vs_rest" and best not in (means[a], means[b])):
            continue
        ties += means[a] == means[b]
        close += 0 < abs(means[a] - means[b]) <= margin
        if abs(means[a] - means[b]) > margin:
            wanted.add((f"s{a}", f"s{b}") if means[a] > means[b] else (f"s{b}", f"s{a}"))
    path = tmp_path_factory.mktemp("ratings") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    done = read(path, "preferences", rules={"min_margin": margin, "ranking": which})
    assert {record.answers for record in done.records} == wanted
    assert len(done.records) == len(wanted)
    notes = {"pairs not made: tie": ties, "pairs not made: margin too small": close}
    assert done.account.notes == {note: count for note, count in notes.items() if count}
    assert done.account.kept == len({system for pair in wanted for system in pair})
