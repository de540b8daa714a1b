"""The number of samplers follows what the learners wait, within its bounds."""

import pytest
from pydantic import ValidationError

from rayrlhf.pool.autoscale import Autoscale, WaitShare

EMPTY = {"done": 0, "leased": 0, "pending": 0}
GENERATING = {"done": 10, "leased": 30, "pending": 20}
RULE = Autoscale(min_workers=2, max_workers=4)


@pytest.mark.parametrize(
    ("size", "share", "outlook", "wanted"),
    [
        (2, 0.9, GENERATING, 3),
        (4, 0.9, GENERATING, 4),
        (3, 0.9, {"done": 50, "leased": 10, "pending": 0}, 3),  # what they wait for is nearly there
        (3, 0.3, GENERATING, 3),
        (3, 0.01, GENERATING, 3),  # nobody waits, but there is still something to generate
        (3, 0.01, EMPTY, 2),
        (2, 0.01, EMPTY, 2),
        (7, 0.3, EMPTY, 4),
    ],
)
def test_one_more_while_learners_wait_and_one_less_while_samplers_do(size, share, outlook, wanted):
    assert RULE.decide(size, share, outlook) == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_workers": 5, "max_workers": 2}, "min_workers 5 exceeds max_workers 2"),
        ({"max_workers": 2, "up_above": 0.2, "down_below": 0.3}, "down_below 0.3 must be less than up_above 0.2"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Autoscale.model_validate(settings)


def test_the_share_counts_waits_within_the_window_alone():
    waits = WaitShare(now=0.0)
    waits.begin(2.0)
    waits.end(5.0)
    assert waits.close(10.0, now=9.0) is None
    waits.begin(9.0)
    assert waits.close(10.0, now=10.0) == 0.4
    waits.end(14.0)  # the second window has the rest of this wait
    assert waits.close(10.0, now=20.0) == 0.4
