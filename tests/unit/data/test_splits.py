"""Held-out splits: by prompt, seeded, and stable when rows are added."""

from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.splits import split_by_prompt

ROWS = [(f"질문 {index % 60}", index) for index in range(200)]


def prompt(row: tuple[str, int]) -> str:
    return row[0]


@given(st.floats(0, 1), st.integers(0, 100))
def test_no_prompt_is_on_both_sides_and_no_row_is_lost(share, seed):
    training, heldout = split_by_prompt(ROWS, prompt, share, seed)
    assert not {prompt(row) for row in training} & {prompt(row) for row in heldout}
    assert sorted(training + heldout) == sorted(ROWS)


@given(st.integers(0, 200), st.integers(0, 100))
def test_appending_rows_moves_none_of_the_old_ones(num_rows, seed):
    before, before_heldout = split_by_prompt(ROWS[:num_rows], prompt, 0.3, seed)
    after, after_heldout = split_by_prompt(ROWS, prompt, 0.3, seed)
    assert after[: len(before)] == before
    assert after_heldout[: len(before_heldout)] == before_heldout


def test_the_held_out_share_is_about_what_was_asked():
    rows = [(str(index), index) for index in range(4000)]
    _, heldout = split_by_prompt(rows, prompt, 0.2, 0)
    assert 700 < len(heldout) < 900


def test_another_seed_holds_out_other_prompts():
    splits = {tuple(split_by_prompt(ROWS, prompt, 0.3, seed)[1]) for seed in range(5)}
    assert len(splits) == 5


def test_a_larger_share_keeps_what_a_smaller_one_held_out():
    _, small = split_by_prompt(ROWS, prompt, 0.1, 0)
    _, large = split_by_prompt(ROWS, prompt, 0.5, 0)
    assert set(small) < set(large)
