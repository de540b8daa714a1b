"""Shares of the reward's ranks: merged row by row, and ended when too many rollouts have no score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.rewards import RewardError, Score
from rayrlhf.workers.score_share import Rejection, ScoreShare, check_rejections

results = st.one_of(
    st.floats(-1e6, 1e6, width=32).map(lambda x: Score(x, parts={"one": x, "other": -x})),
    st.sampled_from(["late", "raised"]).map(lambda reason: Score(None, reason)),
)


@given(st.lists(results, min_size=1, max_size=12), st.integers(1, 4), st.randoms())
def test_merging_puts_every_row_in_its_place(judged, num_ranks, random):
    rows = list(range(len(judged)))
    random.shuffle(rows)
    shares = [
        ScoreShare.of(np.array(own, dtype=np.int64), [judged[row] for row in own], ("one", "other"))
        for own in (rows[rank::num_ranks] for rank in range(num_ranks))
    ]
    merged = ScoreShare.merge(shares, len(judged))
    whole = ScoreShare.of(np.arange(len(judged)), judged, ("one", "other"))
    for name in ("rows", "values", "part_values"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert list(merged.rejections.items()) == [
        (r, Rejection(j.reason)) for r, j in enumerate(judged) if j.value is None
    ]
    assert merged.accepted.tolist() == [result.value is not None for result in judged]


@pytest.mark.parametrize("rows", [[0, 1, 1], [0, 1], [0, 1, 2, 3]])
def test_a_row_that_is_missing_or_there_twice_is_never_merged(rows):
    share = ScoreShare.of(np.array(rows), [Score(1.0)] * len(rows), ())
    with pytest.raises(AssertionError, match="exactly once"):
        ScoreShare.merge([share], 3)


def shared(*judged: Score) -> ScoreShare:
    return ScoreShare.of(np.arange(len(judged)), judged, ())


def test_figures_leave_rejected_rollouts_out():
    judged = [Score(1.0, parts={"a": 2.0}), Score(None, "late"), Score(0.0, parts={"a": 4.0}), Score(None, "late")]
    share = ScoreShare.of(np.arange(4), judged, ("a",))
    assert share.metrics() == {"reward/rejected_share": 0.5, "reward/a_mean": 3.0}


def test_as_many_rejections_as_allowed_pass():
    check_rejections(shared(*[Score(1.0)] * 9, Score(None, "late")), 0.1)
    check_rejections(shared(Score(1.0)), 0.0)


def test_too_many_rejections_end_the_run_with_their_reasons_and_the_first_trace():
    late, wrong = Score(None, "timed out"), Score(None, "raised KeyError", "Traceback: KeyError: 'a'")
    other = Score(None, "raised KeyError", "Traceback: KeyError: 'b'")
    with pytest.raises(RewardError) as caught:
        check_rejections(shared(Score(1.0), late, wrong, other), 0.5)
    message = str(caught.value)
    assert "3 of 4 rollouts" in message
    assert "reward.max_reject_share=0.5" in message
    assert message.index("2 × raised KeyError") < message.index("1 × timed out")
    assert "row 2: raised KeyError\nTraceback: KeyError: 'a'" in message
    assert "'b'" not in message


def test_a_step_without_any_score_ends_the_run_whatever_is_allowed():
    with pytest.raises(RewardError, match="2 of 2 rollouts"):
        check_rejections(shared(Score(None, "late"), Score(None, "late")), 1.0)
