"""Splits: by prompt, seeded, and stable when rows are added."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.tokens.splits import position, split_of

PROMPTS = [PromptText.of(f"질문 {index}") for index in range(4000)]
SHARES = st.lists(st.integers(1, 20), min_size=1, max_size=5).map(lambda parts: [part / sum(parts) for part in parts])
SEEDS = st.integers(0, 100)
TEXTS = st.text(max_size=12)


@given(TEXTS, TEXTS, SHARES, SEEDS)
def test_equal_prompts_are_in_one_split(text, context, shares, seed):
    first, again = PromptText.of(text, context), PromptText((Message("user", text),), context or None)
    assert split_of(first, shares, seed) == split_of(again, shares, seed)
    assert 0 <= split_of(first, shares, seed) < len(shares)


@given(SEEDS, SHARES)
def test_appending_rows_moves_none_of_the_old_ones(seed, shares):
    # What a prompt's split depends on is all there is: neither its row's place nor the other rows.
    alone = [split_of(prompt, shares, seed) for prompt in PROMPTS[:50]]
    among_others = [split_of(prompt, shares, seed) for prompt in reversed(PROMPTS[:200])][::-1]
    assert among_others[:50] == alone


@pytest.mark.parametrize("shares", [(0.2, 0.8), (0.05, 0.95), (0.8, 0.1, 0.1), (0.25, 0.25, 0.25, 0.25)])
def test_each_split_has_about_its_share(shares):
    sizes = Counter(split_of(prompt, shares, 0) for prompt in PROMPTS)
    for index, share in enumerate(shares):
        deviation = (share * (1 - share) / len(PROMPTS)) ** 0.5
        assert abs(sizes[index] / len(PROMPTS) - share) < 4 * deviation


def test_another_seed_holds_out_other_prompts():
    held_out = {tuple(split_of(prompt, (0.3, 0.7), seed) for prompt in PROMPTS[:60]) for seed in range(5)}
    assert len(held_out) == 5


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_what_a_smaller_one_held_out(seed, one, other):
    small, large = sorted((one, other))
    for prompt in PROMPTS[:100]:
        if split_of(prompt, (small, 1 - small), seed) == 0:
            assert split_of(prompt, (large, 1 - large), seed) == 0


def test_a_share_of_nothing_or_of_all_is_held_exactly():
    assert {split_of(prompt, (0.0, 1.0), 0) for prompt in PROMPTS} == {1}
    assert {split_of(prompt, (1.0, 0.0), 0) for prompt in PROMPTS} == {0}
    assert {split_of(prompt, (1.0,), 0) for prompt in PROMPTS} == {0}
    assert {split_of(prompt, (0.5, 0.0, 0.5), 0) for prompt in PROMPTS} == {0, 2}


def test_shares_that_do_not_quite_add_up_to_one_lose_no_prompt():
    assert sum((0.1,) * 10) < 1
    assert {split_of(prompt, (0.1,) * 10, 0) for prompt in PROMPTS} == set(range(10))


@given(TEXTS, SEEDS)
def test_a_position_is_a_number_from_0_to_below_1(key, seed):
    assert 0 <= position(key, seed) < 1


def test_keys_and_seeds_are_told_apart_where_their_digits_run_together():
    assert len({position("12", 1), position("2", 11), position("112", 0), position("", 112)}) == 4


def test_positions_are_spread_evenly_and_do_not_change_from_release_to_release():
    tenths = Counter(int(position(prompt.key, 7) * 10) for prompt in PROMPTS)
    assert max(tenths.values()) - min(tenths.values()) < 120
    # Another hash would move prompts from held-out to training sets that people already have.
    assert position("안녕", 0) == pytest.approx(0.3372878934558313, abs=1e-12)


def test_neighbors_are_split_independently():
    sides = [split_of(prompt, (0.5, 0.5), 3) for prompt in PROMPTS]
    both = sum(a == b == 0 for a, b in itertools.pairwise(sides))
    assert abs(both / len(sides) - 0.25) < 0.03


def test_all_turns_of_a_conversation_are_in_one_split():
    turns = [Message("system", "짧게"), Message("user", "안녕"), Message("assistant", "네"), Message("user", "누구?")]
    for seed in range(50):
        assert split_of(PromptText(tuple(turns[:2])), (0.5, 0.5), seed) == split_of(
            PromptText(tuple(turns)), (0.5, 0.5), seed
        )
