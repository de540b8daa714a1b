"""Micro-batch plans: every row once, the same count on every rank, the bound kept."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.training.batching import epoch_batches, plan_microbatches

LENGTHS = st.lists(st.integers(1, 50), max_size=30)
BOUND = st.integers(1, 200)
RANKS = st.integers(1, 5)


@given(LENGTHS, BOUND, RANKS)
def test_every_row_appears_exactly_once_over_all_ranks(lengths, max_tokens, num_ranks):
    plan = plan_microbatches(lengths, max_tokens, num_ranks)
    assert sorted(row for rank in plan for rows in rank for row in rows) == list(range(len(lengths)))


@given(LENGTHS, BOUND, RANKS)
def test_every_rank_gets_the_same_number_of_microbatches(lengths, max_tokens, num_ranks):
    plan = plan_microbatches(lengths, max_tokens, num_ranks)
    assert len(plan) == num_ranks
    assert len({len(rank) for rank in plan}) == 1


@given(LENGTHS, BOUND, RANKS)
def test_padded_microbatches_keep_the_bound_unless_one_row_alone_breaks_it(lengths, max_tokens, num_ranks):
    for rows in (rows for rank in plan_microbatches(lengths, max_tokens, num_ranks) for rows in rank if rows):
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= max_tokens


@given(LENGTHS, BOUND, RANKS)
def test_no_rank_waits_while_another_has_two_rows_to_share(lengths, max_tokens, num_ranks):
    batches = [rows for rank in plan_microbatches(lengths, max_tokens, num_ranks) for rows in rank]
    if any(not rows for rows in batches):
        assert all(len(rows) <= 1 for rows in batches)


@given(LENGTHS, BOUND, RANKS)
def test_lists_and_arrays_of_lengths_give_the_same_plan(lengths, max_tokens, num_ranks):
    array = np.array(lengths, dtype=np.int64)
    assert plan_microbatches(array, max_tokens, num_ranks) == plan_microbatches(lengths, max_tokens, num_ranks)


def test_rows_of_like_length_go_together():
    assert plan_microbatches([2, 9, 3, 10, 1], max_tokens=20) == [[[3, 1], [2, 0, 4]]]


def test_a_row_over_the_bound_is_a_microbatch_of_its_own():
    assert plan_microbatches([50, 1, 1], max_tokens=8) == [[[0], [1, 2]]]


def test_fewer_rows_than_ranks_leave_an_empty_microbatch():
    assert plan_microbatches([4], max_tokens=8, num_ranks=3) == [[[0]], [[]], [[]]]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 10))
def test_an_epoch_visits_every_row_once(num_rows, batch_size, seed):
    batches = epoch_batches(num_rows, batch_size, (seed, 0))
    assert sorted(np.concatenate(batches)) == list(range(num_rows))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_epochs_differ_and_repeat_with_their_seed():
    first, again, second = (np.concatenate(epoch_batches(50, 8, seed)) for seed in ((1, 0), (1, 0), (1, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
