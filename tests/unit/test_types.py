"""Records that cross actor boundaries: alignment, order and seeds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from padded_arrays import tokens_of

from rayrlhf.types import Rollouts, RowShare, offsets_of, pad_rows, sample_seed, unpad_rows


def assert_same(one: Rollouts, other: Rollouts) -> None:
    for field in dataclasses.fields(Rollouts):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
        assert getattr(one, field.name).dtype == getattr(other, field.name).dtype


@pytest.mark.parametrize("owners", [[0] * 5, [0, 1, 0, 1, 0], [2, 2, 1, 0, 1], [4, 3, 2, 1, 0]])
def test_the_order_of_a_step_does_not_depend_on_who_sampled_what(make_rollouts, owners):
    made = make_rollouts([(2, 1), (3, 4), (1, 1), (2, 6), (4, 2)], prompt_ids=[3, 1, 1, 0, 2])
    made = dataclasses.replace(made, sample_ids=np.array([0, 1, 0, 0, 0], dtype=np.int32))
    shares = [[row for row in range(5) if owners[row] == owner] for owner in range(5)]
    joined = Rollouts.concat([made.take(np.array(rows)) for rows in shares if rows])
    assert_same(joined, Rollouts.concat([made]))
    assert joined.prompt_ids.tolist() == [0, 1, 1, 2, 3]
    assert joined.sample_ids.tolist() == [0, 0, 1, 0, 0]


def test_joining_keeps_every_token_where_it_was(make_rollouts):
    short, long = make_rollouts([(2, 1)], prompt_ids=[1]), make_rollouts([(1, 5)], seed=1, prompt_ids=[0])
    joined = Rollouts.concat([short, long])
    assert tokens_of(joined).shape == (2, 6)
    np.testing.assert_array_equal(tokens_of(joined)[0], long.tokens)
    np.testing.assert_array_equal(tokens_of(joined)[1], [*short.tokens, 0, 0, 0])
    np.testing.assert_array_equal(joined.padded(joined.engine_logprobs)[1, 2], short.engine_logprobs[2])


def test_the_loss_mask_is_set_on_response_tokens_alone(make_rollouts):
    rollouts = make_rollouts([(2, 1), (1, 3)])
    assert rollouts.padded(rollouts.loss_mask, width=5).astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0]]
    assert rollouts.response_lengths.tolist() == [1, 3]


def test_a_response_may_be_sampled_by_several_versions(make_rollouts):
    rollouts = make_rollouts([(2, 1), (1, 3)])
    versions = np.array([0, 0, 7, 0, 5, 5, 6], dtype=np.int32)
    rollouts = dataclasses.replace(rollouts, versions=versions)
    assert rollouts.oldest_versions.tolist() == [7, 5]
    assert rollouts.newest_versions.tolist() == [7, 6]


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 100))
def test_shares_of_all_ranks_come_back_in_order(num_rows, num_ranks, seed):
    order = np.random.default_rng(seed).permutation(num_rows)
    values = np.arange(num_rows, dtype=np.float32) * 10
    shares = [RowShare(order[rank::num_ranks], values[order[rank::num_ranks]]) for rank in range(num_ranks)]
    np.testing.assert_array_equal(RowShare.merge(shares, num_rows), values)


def test_a_rank_without_rows_adds_nothing():
    full = RowShare(np.array([1, 0]), np.ones(6, np.float32), np.array([4, 2]))
    empty = RowShare(np.array([], dtype=np.int64), np.zeros((0,), np.float32))
    assert RowShare.merge([empty, full, empty], 2).shape == (6,)


def test_shares_of_rows_of_different_lengths_come_back_row_after_row():
    shares = [
        RowShare(np.array([2, 0]), np.array([1.0, 2.0, 3.0]), np.array([2, 1])),
        RowShare(np.array([1]), np.array([5.0, 6.0, 7.0]), np.array([3])),
    ]
    assert RowShare.merge(shares, 3).tolist() == [3, 5, 6, 7, 1, 2]


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 1], [0, 1, 3]])
def test_a_row_that_is_missing_or_there_twice_is_an_error(rows):
    with pytest.raises(AssertionError, match="every row exactly once"):
        RowShare.merge([RowShare(np.array(rows), np.zeros(len(rows)))], 3)


def test_rows_are_padded_with_zeros_on_the_right():
    flat, offsets = np.array([1, 2, 3, 4, 5, 6]), offsets_of(np.array([2, 1, 3]))
    assert pad_rows(flat, offsets).tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert pad_rows(flat, offsets, np.array([1, 0])).tolist() == [[3, 0], [1, 2]]
    assert pad_rows(flat, offsets, np.array([1]), width=4).tolist() == [[3, 0, 0, 0]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 3), st.randoms(use_true_random=False))
def test_padding_and_back_changes_nothing(lengths, extra, order):
    offsets = offsets_of(np.array(lengths))
    flat = np.arange(1, offsets[-1] + 1)
    order.shuffle(rows := list(range(len(lengths))))
    padded = pad_rows(flat, offsets, np.array(rows), width=max(lengths) + extra)
    wanted = [token for row in rows for token in flat[offsets[row] : offsets[row + 1]]]
    assert unpad_rows(padded, np.array(lengths)[rows]).tolist() == wanted


def test_one_long_response_does_not_cost_its_length_for_every_other(make_rollouts):
    rollouts = make_rollouts([(10, 5)] * 255 + [(10, 8000)])
    bytes_of = sum(array.nbytes for array in vars(rollouts).values())
    assert bytes_of < 20 * (15 * 255 + 8010)  # 13 bytes a token, and a little for each row


def test_seeds_are_the_same_whichever_sampler_draws_and_on_every_machine():
    # These numbers are what runs on record were drawn with: they may not change.
    assert [sample_seed(0, 0, 0, 0), sample_seed(1, 2, 3, 4)] == [821328062, 2104360843]


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 100))
def test_seeds_fit_what_engines_take(run_seed, step, prompt_id, sample_id):
    assert 0 <= sample_seed(run_seed, step, prompt_id, sample_id) < 2**31


def test_seeds_of_a_run_differ():
    seeds = {sample_seed(0, step, prompt, sample) for step in range(10) for prompt in range(50) for sample in range(4)}
    assert len(seeds) > 2000 - 5  # 2000 draws of 2^31 collide once in a thousand runs
