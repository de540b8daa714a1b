"""Synthetic negatives: what each is made of, seeded, marked, and never the chosen answer itself."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.records import Origin, Preference, PromptText

KINDS = ("random_words", "repeated_tail", "other_answer")
EVERYTHING = Augmentation(share=1.0)


def pair(index: int, chosen: str | None = None) -> Preference:
    origin = Origin("pairs.jsonl", index + 1, id=index, rule="ranking", siblings=3)
    return Preference(
        PromptText.of(f"질문 {index}"), chosen or f"답 {index} 은 이것 {index} 입니다", "모릅니다", origin=origin
    )


PAIRS = [pair(index) for index in range(40)]


def make(pairs, config=EVERYTHING, seed=0, account=None):
    return list(config.make(pairs, seed, account or Account()))


def of_kind(kind: str, pairs, seed=0):
    return make(pairs, Augmentation(negatives=(kind,), share=1.0), seed)


# the three kinds


def test_random_words_are_as_many_words_drawn_from_all_answers():
    known = {word for pair in PAIRS for word in pair.chosen.split()}
    made = of_kind("random_words", PAIRS)
    assert len(made) == len(PAIRS)
    for before, after in zip(PAIRS, made, strict=True):
        words = after.rejected.split()
        assert len(words) == len(before.chosen.split())
        assert set(words) <= known
    assert len({word for pair in made for word in pair.rejected.split()}) > 20  # not those of one answer


def test_a_repeated_tail_is_the_answer_with_its_last_third_said_again():
    (made,) = of_kind("repeated_tail", [pair(0, "하나 둘 셋 넷 다섯 여섯")])
    assert made.rejected == "하나 둘 셋 넷 다섯 여섯" + " 다섯 여섯" * 3
    (made,) = make([pair(0, "네")], Augmentation(negatives=("repeated_tail",), share=1.0, num_repeats=2))
    assert made.rejected == "네 네 네"


def test_another_answer_was_chosen_for_another_prompt():
    answers = {pair.prompt.key: pair.chosen for pair in PAIRS}
    made = of_kind("other_answer", PAIRS)
    assert len(made) == len(PAIRS)
    for pair in made:
        assert pair.rejected in set(answers.values()) - {answers[pair.prompt.key]}
    assert len({pair.rejected for pair in made}) > 20


@given(st.lists(st.tuples(st.integers(0, 5), st.text("가나 ", min_size=1, max_size=6)), max_size=12), st.integers(0, 9))
def test_no_made_answer_is_the_chosen_one_and_all_are_accounted_for(rows, seed):
    account = Account()
    pairs = [pair(index, text) for index, text in rows]
    made = make(pairs, seed=seed, account=account)
    assert all(pair.rejected != pair.chosen and pair.rejected for pair in made)
    prompts = {pair.prompt.key for pair in pairs}
    failed = sum(account.notes[f"no {kind} negative could be made"] for kind in KINDS)
    assert account.notes["synthetic pairs"] == len(made)
    assert len(made) + failed == len(KINDS) * len(prompts)


def test_a_single_prompt_has_no_other_to_take_answers_from():
    account = Account()
    (made,) = make(PAIRS[:1], account=account)
    assert made.origin.rule == "repeated_tail"
    assert account.notes == {
        "synthetic pairs": 1,
        "no random_words negative could be made": 1,
        "no other_answer negative could be made": 1,
    }


# which prompts, and where from


def test_each_prompt_is_used_once_with_its_first_pair():
    first, second = pair(0, "처음 답"), pair(0, "둘째 답")
    made = of_kind("repeated_tail", [first, pair(1), second])
    assert [pair.chosen for pair in made] == ["처음 답", pair(1).chosen]


def test_made_pairs_keep_prompt_chosen_and_place_and_are_marked_as_synthetic():
    for after in make(PAIRS):
        before = PAIRS[after.origin.id]
        assert (after.prompt, after.chosen) == (before.prompt, before.chosen)
        assert (after.origin.source, after.origin.place) == (before.origin.source, before.origin.place)
        assert after.origin.synthetic
        assert after.origin.rule in KINDS
        assert after.origin.siblings == 0  # they are not rows of the file
    assert not any(pair.origin.synthetic for pair in PAIRS)


def test_made_pairs_come_in_the_order_of_the_prompts():
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    made = make(shuffled)
    assert [pair.origin.id for pair in made[:: len(KINDS)]] == [pair.origin.id for pair in shuffled]
    assert [pair.origin.rule for pair in made[: len(KINDS)]] == list(KINDS)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_kind_is_made_for_about_its_share_of_the_prompts(share):
    pairs = [pair(index) for index in range(2000)]
    made = Counter(after.origin.rule for after in make(pairs, Augmentation(share=share)))
    assert set(made) == set(KINDS)
    for count in made.values():
        assert abs(count / len(pairs) - share) < 4 * (share * (1 - share) / len(pairs)) ** 0.5


def test_kinds_choose_their_prompts_independently():
    chosen: dict[str, set[int]] = {kind: set() for kind in KINDS}
    for after in make([pair(index) for index in range(2000)], Augmentation(share=0.5)):
        chosen[after.origin.rule].add(after.origin.id)
    for one, other in [KINDS[:2], KINDS[1:]]:
        assert 400 < len(chosen[one] & chosen[other]) < 600


# seeds


@given(st.integers(0, 50), st.randoms(use_true_random=False))
def test_the_same_seed_makes_the_same_pairs_whatever_the_order_of_the_rows(seed, order):
    shuffled = order.sample(PAIRS, len(PAIRS))
    config = Augmentation(share=0.5)
    assert set(make(PAIRS, config, seed)) == set(make(shuffled, config, seed))
    assert make(PAIRS, config, seed) == make(PAIRS, config, seed)


def test_another_seed_makes_other_pairs():
    made = [tuple(make(PAIRS, Augmentation(share=0.5), seed)) for seed in range(3)]
    assert len(set(made)) == 3


def test_a_kind_does_not_change_what_the_others_make():
    alone = of_kind("repeated_tail", PAIRS) + of_kind("other_answer", PAIRS)
    assert Counter(alone) == Counter(make(PAIRS, Augmentation(negatives=("other_answer", "repeated_tail"), share=1.0)))


def test_no_pairs_make_none():
    assert make([]) == []


@pytest.mark.parametrize("wrong", [{"negatives": ()}, {"share": 0}, {"share": 1.5}, {"num_repeats": 0}])
def test_settings_that_make_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        Augmentation(**wrong)
