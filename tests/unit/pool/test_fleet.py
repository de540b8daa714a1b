"""Which samplers run, which are replaced and when, and where their seconds go."""

import itertools

import pytest

from rayrlhf.pool import goodput
from rayrlhf.pool.commands import Fail, Kill, Start, Stop
from rayrlhf.pool.fleet import LONGEST_BACKOFF_S, Fleet, Patience
from rayrlhf.pool.leases import Report
from rayrlhf.pool.member import Phase

PATIENCE = Patience(start_s=60.0, silence_s=10.0, max_failures=3)


def fleet_of(size: int, now: float = 0.0, patience: Patience = PATIENCE) -> Fleet:
    """A fleet whose samplers are all up."""
    fleet = Fleet(size, patience, now)
    bring_up(fleet, now)
    return fleet


def bring_up(fleet: Fleet, now: float) -> None:
    for command in fleet.adjust(now):
        fleet.placed(command.member, now)
        fleet.up(command.member, now)


def adjusted(fleet: Fleet, now: float) -> list:
    return list(fleet.adjust(now))


def phases(fleet: Fleet) -> dict[int, Phase]:
    return {member.id: member.phase for member in fleet.members.values()}


def overdue(fleet: Fleet, now: float, needed: int = -1) -> dict[int, str]:
    return {member.id: why for member, why in fleet.overdue(now, needed)}


def fail_once(fleet: Fleet, now: float) -> None:
    """All its samplers are lost without an answer."""
    for member_id in list(fleet.members):
        fleet.remove(member_id, now, "it crashed")


def test_as_many_samplers_start_as_were_requested_and_no_more():
    fleet = Fleet(3, PATIENCE, 0.0)
    assert adjusted(fleet, 0.0) == [Start(0), Start(1), Start(2)]
    assert adjusted(fleet, 0.0) == []


def test_a_sampler_that_worked_is_replaced_at_once_under_a_new_id():
    fleet = fleet_of(2)
    fleet.answered(fleet.members[0])
    fleet.remove(0, 5.0, "it died")
    assert adjusted(fleet, 5.0) == [Start(2)]


def test_samplers_that_never_answer_are_replaced_after_growing_backoffs():
    fleet = Fleet(1, Patience(60, 10, max_failures=100), 0.0)
    now, pauses = 0.0, []
    for _ in range(8):
        while not adjusted(fleet, now):
            now += 0.5
        pauses.append(now)
        fail_once(fleet, now)
    waits = [later - earlier for earlier, later in itertools.pairwise(pauses)]
    assert waits == [1, 2, 4, 8, 16, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S]


def test_a_newcomer_that_answers_resets_the_backoff():
    fleet = Fleet(1, Patience(60, 10, max_failures=100), 0.0)
    for now in (0.0, 100.0, 200.0):
        assert adjusted(fleet, now)
        fail_once(fleet, now)
    bring_up(fleet, 300.0)
    fleet.answered(next(iter(fleet.members.values())))
    fleet.remove(3, 301.0, "it died")
    assert adjusted(fleet, 301.0) == [Start(4)]
    fleet.remove(4, 302.0, "it died")
    assert adjusted(fleet, 302.9) == []
    assert adjusted(fleet, 303.0) == [Start(5)]


def test_answers_of_others_do_not_hasten_a_sampler_that_never_works():
    fleet = fleet_of(2)
    for lost, now in enumerate([0.0, 10.0, 20.0], start=1):
        fleet.answered(fleet.members[0])
        fleet.remove(lost, now, "its GPU is broken")
        bring_up(fleet, now + 4.0)
    assert adjusted(fleet, 24.0) == []
    assert set(fleet.members) == {0, 4}


def test_failures_in_a_row_end_the_run_with_the_last_reason_and_the_setting():
    fleet = Fleet(2, PATIENCE, 0.0)
    for now in (0.0, 100.0, 200.0):
        assert [type(command) for command in adjusted(fleet, now)] == [Start, Start]
        fail_once(fleet, now)
    (failure,) = adjusted(fleet, 300.0)
    assert isinstance(failure, Fail)
    assert "3 times in a row" in failure.message
    assert "it crashed" in failure.message
    assert "rollouts.max_failures" in failure.message


def test_a_node_full_of_new_samplers_that_dies_is_one_failure():
    fleet = fleet_of(8)
    fail_once(fleet, 1.0)
    assert fleet.num_lost == 8
    assert adjusted(fleet, 2.0) == [Start(number) for number in range(8, 16)]


def test_one_accepted_answer_between_failures_forgives_them():
    fleet = fleet_of(2)
    for now in range(0, 1000, 100):
        bring_up(fleet, now)
        fleet.answered(fleet.members[0])
        fleet.remove(max(fleet.members), now, "it died")
        assert not any(isinstance(command, Fail) for command in fleet.adjust(now))


def test_scaling_down_first_ends_samplers_that_are_not_up():
    fleet = fleet_of(2)
    fleet.size = 4
    adjusted(fleet, 0.0)
    fleet.placed(2, 0.0)
    fleet.size = 3
    assert adjusted(fleet, 1.0) == [Kill(3, "the fleet was scaled down")]
    fleet.size = 2
    assert adjusted(fleet, 2.0) == [Kill(2, "the fleet was scaled down")]
    fleet.size = 1
    assert adjusted(fleet, 3.0) == [Stop(0)]


def test_scaling_down_counts_neither_losses_nor_failures():
    fleet = fleet_of(3)
    fleet.size = 0
    adjusted(fleet, 0.0)
    assert fleet.num_lost == 0
    fleet.size = 3
    assert adjusted(fleet, 0.0) == [Start(3), Start(4), Start(5)]


def test_silence_is_noticed_only_of_samplers_that_are_up():
    fleet = Fleet(2, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    fleet.placed(0, 0.0)
    fleet.up(0, 0.0)
    fleet.heard(0, Report(0), 5.0)
    assert overdue(fleet, 15.0) == {}
    assert overdue(fleet, 15.1).keys() == {0}
    assert "rollouts.silence_timeout_s=10" in overdue(fleet, 15.1)[0]


def test_a_placed_sampler_has_to_be_ready_in_time_and_one_without_room_may_wait():
    fleet = Fleet(2, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    fleet.placed(0, 30.0)
    assert overdue(fleet, 90.0) == {}
    assert overdue(fleet, 90.1).keys() == {0}
    assert "timeouts.start_s=60" in overdue(fleet, 90.1)[0]


def test_a_sampler_whose_weights_stay_too_old_is_replaced():
    fleet = fleet_of(2)
    for second in range(62):
        fleet.heard(0, Report(version=4), second)
        fleet.heard(1, Report(version=3), second)
        late = overdue(fleet, second, needed=4)
    assert late.keys() == {1}
    assert "still version 3 when 4" in late[1]


def test_time_in_which_the_pool_stood_still_is_nobodys_fault():
    fleet = Fleet(2, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    fleet.placed(0, 0.0)
    fleet.up(0, 0.0)
    fleet.placed(1, 0.0)
    fleet.skip(1000.0)
    assert overdue(fleet, 1010.0) == {}
    assert fleet.starved(1060.0) is None
    assert overdue(fleet, 1010.1).keys() == {0}
    assert overdue(fleet, 1060.1).keys() == {0, 1}


def test_no_room_for_any_sampler_ends_the_run_and_says_what_to_do():
    fleet = Fleet(2, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    assert fleet.starved(60.0) is None
    failure = fleet.starved(61.0)
    assert "waited 61 s for room" in failure.message
    assert "2 are not placed yet" in failure.message
    assert "timeouts.start_s" in failure.message


@pytest.mark.parametrize("event", ["one is placed", "none is wanted"])
def test_waiting_for_room_is_no_failure_if(event):
    fleet = Fleet(2, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    if event == "one is placed":
        fleet.placed(1, 1.0)
    else:
        fleet.size = 0
    for now in (2.0, 50.0, 100.0):
        adjusted(fleet, now)
        assert fleet.starved(now) is None


def test_the_wait_for_room_begins_anew_when_the_last_placed_sampler_is_lost():
    fleet = fleet_of(1)
    fleet.size = 2
    adjusted(fleet, 0.0)
    adjusted(fleet, 500.0)
    fleet.answered(fleet.members[0])
    fleet.remove(0, 500.0, "it died")
    adjusted(fleet, 500.0)
    assert fleet.starved(560.0) is None
    assert "it died" in fleet.starved(561.0).message


def test_events_of_replaced_samplers_and_of_past_phases_change_nothing():
    fleet = fleet_of(1)
    fleet.placed(0, 1.0)
    fleet.up(0, 1.0)
    assert phases(fleet) == {0: Phase.READY}
    fleet.remove(0, 2.0, "it died")
    fleet.placed(0, 3.0)
    fleet.up(0, 3.0)
    assert fleet.heard(0, Report(1), 3.0) is None
    assert fleet.remove(0, 4.0, "it died again") is None
    assert fleet.num_lost == 1


def test_a_report_that_was_overtaken_is_a_sign_of_life_and_no_news():
    fleet = fleet_of(1)
    fleet.heard(0, Report(version=2, seconds={goodput.GENERATE: 4.0}), 4.0)
    fleet.heard(0, Report(version=1, seconds={goodput.GENERATE: 3.0}), 6.0)
    assert fleet.members[0].version == 2
    assert fleet.members[0].last_heard == 6.0


def seconds_of(fleet: Fleet, now: float) -> dict[str, float]:
    return {activity: seconds for activity, seconds in fleet.account(now).items() if seconds}


def test_seconds_are_those_of_the_samplers_and_of_the_dead():
    fleet = Fleet(1, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    fleet.placed(0, 2.0)
    fleet.up(0, 5.0)
    fleet.heard(0, Report(0, seconds={goodput.GENERATE: 3.0, goodput.LOAD_WEIGHTS: 1.0}), 9.0)
    expected = {goodput.WAIT_FOR_ROOM: 2.0, goodput.START_UP: 3.0, goodput.GENERATE: 3.0, goodput.LOAD_WEIGHTS: 1.0}
    assert seconds_of(fleet, 9.0) == expected
    fleet.heard(0, Report(0, seconds=fleet.members[0].report.seconds, activity=goodput.GENERATE), 10.0)
    assert seconds_of(fleet, 11.0) == {**expected, goodput.GENERATE: 5.0}  # it still does what it did then
    fleet.remove(0, 15.0, "silent")
    assert adjusted(fleet, 15.5) == []
    assert seconds_of(fleet, 15.5) == {**expected, goodput.DEAD: 6.5}
    adjusted(fleet, 16.0)
    assert seconds_of(fleet, 18.0) == {**expected, goodput.DEAD: 7.0, goodput.WAIT_FOR_ROOM: 4.0}


def test_a_sampler_that_was_up_before_the_pool_heard_of_it_is_not_counted_twice():
    fleet = Fleet(1, PATIENCE, 0.0)
    adjusted(fleet, 0.0)
    fleet.placed(0, 2.0)
    fleet.up(0, 10.0)
    fleet.heard(0, Report(0, seconds={goodput.GENERATE: 9.0}), 10.0)
    assert seconds_of(fleet, 10.0) == {goodput.WAIT_FOR_ROOM: 1.0, goodput.GENERATE: 9.0}
