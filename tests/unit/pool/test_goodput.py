"""Every second belongs to one activity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.pool.goodput import GENERATE, LOAD_WEIGHTS, SAMPLER_ACTIVITIES, Stopwatch, added, shares

SWITCHES = st.lists(st.tuples(st.sampled_from(SAMPLER_ACTIVITIES), st.integers(0, 1000)), max_size=30)


@given(SWITCHES)
def test_activities_add_up_to_the_time_since_the_start(switches):
    watch, now = Stopwatch(GENERATE, 5.0), 5.0
    for activity, seconds in switches:
        now += seconds
        watch.switch(activity, now)
    assert sum(watch.seconds(now + 2).values()) == now + 2 - 5


def test_seconds_go_to_what_was_going_on():
    watch = Stopwatch(GENERATE, 0.0)
    watch.switch(LOAD_WEIGHTS, 3.0)
    watch.switch(GENERATE, 4.0)
    assert watch.seconds(10.0) == {GENERATE: 9.0, LOAD_WEIGHTS: 1.0}


def test_asking_changes_nothing():
    watch = Stopwatch(GENERATE, 0.0)
    first = watch.seconds(2.0)
    assert watch.seconds(5.0) == {GENERATE: 5.0}
    assert first == {GENERATE: 2.0}


def test_shares_add_up_to_one_and_nothing_has_none():
    assert shares({GENERATE: 3.0, LOAD_WEIGHTS: 1.0}) == {GENERATE: 0.75, LOAD_WEIGHTS: 0.25}
    assert shares({}) == shares({GENERATE: 0.0}) == {}


def test_accounts_are_added_by_activity():
    total = added([{GENERATE: 1.0}, {GENERATE: 2.0, LOAD_WEIGHTS: 0.5}, {}])
    assert total == {GENERATE: pytest.approx(3.0), LOAD_WEIGHTS: 0.5}
