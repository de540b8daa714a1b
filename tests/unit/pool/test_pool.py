"""Which sampler generates what, and which answers count. Whole runs are in tests/faults."""

import pytest

from rayrlhf.engines.base import Sampling
from rayrlhf.pool.commands import Accept, Deliver, Fail, Kill, Send, Start, Stop
from rayrlhf.pool.fleet import Patience
from rayrlhf.pool.leases import Answer, Lease, Report, SampleBatch
from rayrlhf.pool.ledger import LedgerError
from rayrlhf.pool.pool import Pool, PoolSettings
from rayrlhf.types import Prompt, Sample

SAMPLING = Sampling(max_completion_length=10)


def pool_of(num_samplers: int, num_slots: int = 8, max_failures: int = 3) -> Pool:
    """A pool whose samplers are up with version 0."""
    patience = Patience(start_s=60.0, silence_s=10.0, max_failures=max_failures)
    pool = Pool(PoolSettings(num_samplers, patience, lease_s=30.0, num_slots=num_slots, max_pause_s=5.0), 0.0)
    bring_up(pool, pool.tick(0.0), 0.0)
    return pool


def bring_up(pool: Pool, commands: list, now: float, version: int = 0) -> list:
    """Samplers that `commands` start are up; the commands that follow."""
    following = []
    for command in commands:
        if isinstance(command, Start):
            pool.placed(command.member, now)
            pool.up(command.member, now)
            following += pool.heard(command.member, Report(version), now)
    return following


def batch_of(
    num_groups: int,
    num_generations: int = 2,
    batch_id: int = 0,
    step: int = 0,
    min_version: int = 0,
    purpose: str = "train",
    prompt_tokens: tuple[int, ...] = (),
) -> SampleBatch:
    prompts = [Prompt(index, (7,) * (prompt_tokens[index] if prompt_tokens else 3)) for index in range(num_groups)]
    samples = [Sample(prompt, sample, 0) for prompt in prompts for sample in range(num_generations)]
    return SampleBatch(batch_id, step, tuple(samples), SAMPLING, min_version, purpose)


def sent(commands: list) -> dict[int, list[Lease]]:
    """Leases by sampler."""
    return {command.member: list(command.leases) for command in commands if isinstance(command, Send)}


def answer(lease: Lease, version: int = 0) -> Answer:
    return Answer(lease.id, version, [*lease.keys])


def accept(lease: Lease) -> Accept:
    """The command that announces the answer above."""
    return Accept(lease.batch_id, [*lease.keys])


def prompts_of(leases: list[Lease]) -> list[int]:
    return [lease.samples[0].prompt.id for lease in leases]


def beat(pool: Pool, now: float, version: int = 0) -> list:
    """Every sampler sends a report."""
    return [command for member in list(pool.fleet.members) for command in pool.heard(member, Report(version), now)]


def test_the_samples_of_a_prompt_stay_together():
    pool = pool_of(3)
    leases = sent(pool.submit(batch_of(9, num_generations=3), 0.0))
    assert sorted(prompts_of([lease for held in leases.values() for lease in held])) == list(range(9))
    assert all(lease.keys == [(0, lease.samples[0].prompt.id, n) for n in range(3)] for lease in leases[0])


def test_a_group_goes_to_the_sampler_with_the_fewest_tokens_to_generate():
    leases = sent(pool_of(2).submit(batch_of(4, prompt_tokens=(90, 10, 10, 10)), 0.0))
    assert [prompts_of(leases[member]) for member in (0, 1)] == [[0], [1, 2, 3]]


def test_a_sampler_holds_a_quarter_more_than_its_engine_works_on_and_the_rest_waits():
    pool = pool_of(2, num_slots=8)
    leases = sent(pool.submit(batch_of(20), 0.0))
    assert [sum(len(lease.samples) for lease in leases[member]) for member in (0, 1)] == [10, 10]
    assert pool.outlook() == {"done": 0, "leased": 20, "pending": 20}


def test_a_group_larger_than_a_sampler_may_hold_is_leased_when_that_has_nothing_else():
    pool = pool_of(1, num_slots=4)
    leases = sent(pool.submit(batch_of(2, num_generations=9), 0.0))
    assert prompts_of(leases[0]) == [0]
    assert prompts_of(sent(pool.heard(0, Report(0, (answer(leases[0][0]),)), 1.0))[0]) == [1]


def test_earlier_steps_are_served_first():
    pool = pool_of(1, num_slots=4)
    (first, _) = sent(pool.submit(batch_of(3, batch_id=0, step=5), 0.0))[0]
    pool.submit(batch_of(1, batch_id=1, step=6), 0.0)
    pool.submit(batch_of(1, batch_id=2, step=4), 0.0)
    (following,) = sent(pool.heard(0, Report(0, (answer(first),)), 1.0))[0]
    assert following.batch_id == 2  # of step 4


def test_small_groups_of_later_steps_do_not_keep_a_large_one_waiting():
    pool = pool_of(1, num_slots=4)
    (first, _) = sent(pool.submit(batch_of(2, num_generations=2, batch_id=0), 0.0))[0]
    pool.submit(batch_of(1, num_generations=4, batch_id=1, step=1), 0.0)
    pool.submit(batch_of(9, num_generations=1, batch_id=2, step=2), 0.0)
    assert sent(pool.heard(0, Report(0, (answer(first),)), 1.0)) == {}


def test_a_batch_is_not_complete_before_its_last_answer():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    assert pool.heard(0, Report(0, (answer(leases[0][0]),)), 1.0) == [accept(leases[0][0])]
    with pytest.raises(AssertionError, match="still lacks 2 samples"):
        pool.take(0)


def test_what_take_returns_is_the_batchs_samples_each_once():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    pool.heard(0, Report(0, (answer(leases[0][0]),)), 1.0)
    assert pool.heard(1, Report(0, (answer(leases[1][0]),)), 1.0) == [accept(leases[1][0]), Deliver(0)]
    assert sorted(key for keys in pool.take(0) for key in keys) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    with pytest.raises(KeyError):
        pool.take(0)


@pytest.mark.parametrize(("purpose", "end"), [("train", "trained"), ("evaluate", "used"), ("baseline", "used")])
def test_settled_samples_end_by_the_batchs_purpose_or_are_rejected(purpose, end):
    pool = pool_of(1)
    ((lease,),) = sent(pool.submit(batch_of(1, purpose=purpose), 0.0)).values()
    pool.heard(0, Report(0, (answer(lease),)), 1.0)
    pool.take(0)
    pool.settle(0, {(0, 1): "no reward"})
    assert pool.ledger.counts[end] == 1
    assert pool.ledger.reasons == {"no reward": 1}
    with pytest.raises(KeyError):
        pool.settle(0, {})


def test_an_answer_that_comes_twice_counts_once():
    pool = pool_of(1)
    leases = sent(pool.submit(batch_of(2), 0.0))[0]
    assert pool.heard(0, Report(0, (answer(leases[0]),)), 1.0) == [accept(leases[0])]
    assert pool.heard(0, Report(0, (answer(leases[0]),)), 1.0) == []
    assert pool.ignored == {"late": 1}
    assert pool.outlook() == {"done": 2, "leased": 2, "pending": 0}


def test_a_lost_samplers_groups_go_to_others_at_once_and_its_late_answers_are_ignored():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    again = sent(pool.lost(0, "it died", 1.0))
    assert again.keys() == {1}
    assert [lease.keys for lease in again[1]] == [leases[0][0].keys]
    assert again[1][0].id not in (leases[0][0].id, leases[1][0].id)
    assert pool.heard(0, Report(0, (answer(leases[0][0]),)), 2.0) == [Start(2)]
    assert pool.ignored == {"late": 1}
    commands = pool.heard(1, Report(0, (answer(leases[1][0]), answer(again[1][0]))), 3.0)
    assert commands == [accept(leases[1][0]), accept(again[1][0]), Deliver(0)]


def test_groups_of_a_lost_sampler_come_first_and_in_their_order():
    pool = pool_of(2, num_slots=4)
    leases = sent(pool.submit(batch_of(8), 0.0))
    pool.lost(0, "it died", 1.0)
    following = sent(pool.heard(1, Report(0, tuple(map(answer, leases[1]))), 2.0))
    assert prompts_of(following[1]) == prompts_of(leases[0])


def test_an_answer_for_another_samplers_lease_is_ignored():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    assert pool.heard(1, Report(0, (answer(leases[0][0]),)), 1.0) == []
    assert pool.ignored == {"late": 1}


def test_tokens_older_than_the_batch_allows_are_generated_again():
    pool = pool_of(1)
    beat(pool, 0.0, version=3)
    ((lease,),) = sent(pool.submit(batch_of(1, min_version=3), 0.0)).values()
    commands = pool.heard(0, Report(3, (answer(lease, version=2),)), 1.0)
    assert not any(isinstance(command, Accept) for command in commands)
    ((again,),) = sent(commands).values()
    assert again.keys == lease.keys
    assert again.id != lease.id
    assert pool.ignored == {"stale": 1}
    assert pool.heard(0, Report(3, (answer(again, version=3),)), 2.0) == [accept(again), Deliver(0)]


def test_a_sampler_gets_a_lease_only_when_its_weights_are_new_enough():
    pool = pool_of(2)
    assert sent(pool.submit(batch_of(2, min_version=1), 0.0)) == {}
    assert sent(pool.heard(1, Report(version=1), 1.0)).keys() == {1}


def test_an_engine_without_weights_gets_no_lease():
    pool = pool_of(1)
    beat(pool, 0.5, version=-1)
    assert sent(pool.submit(batch_of(1), 1.0)) == {}
    with pytest.raises(AssertionError, match="without weights"):
        batch_of(1, min_version=-1)


def test_a_leaving_sampler_finishes_what_it_has_and_gets_nothing_new():
    pool = pool_of(1, num_slots=4)
    first, second = sent(pool.submit(batch_of(3), 0.0))[0]
    assert pool.scale(0, 0.0) == []
    assert pool.heard(0, Report(0, (answer(first),)), 1.0) == [accept(first)]
    assert pool.heard(0, Report(0, (answer(second),)), 2.0) == [accept(second), Stop(0)]
    assert pool.outlook() == {"done": 4, "leased": 0, "pending": 2}


def test_a_leaving_sampler_that_is_wanted_again_stays_and_takes_leases():
    pool = pool_of(1, num_slots=4)
    pool.submit(batch_of(1), 0.0)
    pool.scale(0, 0.0)
    assert sent(pool.submit(batch_of(1, batch_id=1), 0.0)) == {}
    assert sent(pool.scale(1, 1.0)).keys() == {0}


def test_a_leaving_sampler_that_dies_leaves_no_gap_and_loses_nothing():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    pool.scale(1, 0.0)
    commands = pool.lost(0, "it died", 1.0)
    assert [type(command) for command in commands] == [Send]
    assert sent(commands)[1][0].keys == leases[0][0].keys


def test_a_silent_sampler_is_killed_and_its_groups_go_to_others():
    pool = pool_of(2)
    pool.submit(batch_of(2), 0.0)
    for now in range(1, 11):
        pool.heard(1, Report(0), now)
        assert pool.tick(now) == []
    pool.heard(1, Report(0), 10.5)
    kill, send = pool.tick(10.5)
    assert (kill.member, send.member) == (0, 1)
    assert "rollouts.silence_timeout_s=10" in kill.why


def test_samplers_that_fall_silent_together_get_none_of_each_others_groups():
    pool = pool_of(3)
    pool.submit(batch_of(3), 0.0)
    for now in range(1, 11):
        pool.tick(now)
    assert {type(command) for command in pool.tick(11.0)} == {Kill}
    assert pool.outlook()["pending"] == 6


def test_a_lease_beyond_its_deadline_is_taken_back_though_its_sampler_reports():
    pool = pool_of(2)
    leases = sent(pool.submit(batch_of(2), 0.0))
    pool.heard(1, Report(0, (answer(leases[1][0]),)), 1.0)
    for now in range(1, 31):
        beat(pool, now)
        assert pool.tick(now) == []
    kill, send = pool.tick(30.5)
    assert (kill.member, "rollouts.lease_timeout_s" in kill.why) == (0, True)
    assert sent([send])[1][0].keys == leases[0][0].keys


@pytest.mark.parametrize("first_event", ["a tick", "a report"])
def test_when_the_pool_stood_still_nobody_is_killed_for_it_and_later_silence_is_still_noticed(first_event):
    pool = pool_of(2)
    pool.submit(batch_of(2), 0.0)
    pool.tick(1.0)
    if first_event == "a tick":
        assert pool.tick(10_000.0) == []
        pool.heard(1, Report(0), 10_000.0)
    else:
        pool.heard(1, Report(0), 10_000.0)
        assert pool.tick(10_000.0) == []
    for second in range(1, 10):
        pool.heard(1, Report(0), 10_000.0 + second)
        assert pool.tick(10_000.0 + second) == []
    assert [command.member for command in pool.tick(10_011.0)] == [0, 1]


def test_samplers_that_never_answer_end_the_run():
    pool = pool_of(1, max_failures=2)
    pool.submit(batch_of(1), 0.0)
    pool.lost(0, "it died", 1.0)
    bring_up(pool, pool.tick(2.0), 2.0)
    (failure,) = pool.lost(1, "out of memory", 3.0)
    assert isinstance(failure, Fail)
    assert "out of memory" in failure.message


def test_no_room_for_a_sampler_ends_the_run():
    pool = Pool(PoolSettings(1, Patience(60.0, 10.0, 3), 30.0, 8, 5.0), 0.0)
    commands = [command for now in range(62) for command in pool.tick(now)]
    assert commands[0] == Start(0)
    assert [type(command) for command in commands[1:]] == [Fail]
    assert "waited 61 s for room" in commands[1].message


def test_no_batch_is_submitted_twice_or_empty():
    pool = pool_of(1)
    pool.submit(batch_of(1), 0.0)
    with pytest.raises(LedgerError, match="submitted twice"):
        pool.submit(batch_of(1), 0.0)
    with pytest.raises(AssertionError, match="never be complete"):
        batch_of(0)


def test_a_sampler_whose_weights_come_later_finds_its_share():
    pool = pool_of(2, num_slots=64)
    pool.heard(0, Report(version=1), 0.0)
    first = sent(pool.submit(batch_of(10, min_version=1), 0.0))
    assert len(first[0]) == 6  # no more than its share and one group, though it has room for all
    later = sent(pool.heard(1, Report(version=1), 0.1))
    assert len(later[1]) == 4


def test_a_sampler_never_waits_for_one_that_stays_behind():
    pool = pool_of(2, num_slots=64)
    pool.heard(0, Report(version=1), 0.0)
    held = sent(pool.submit(batch_of(10, min_version=1), 0.0))[0]
    done = 0
    while held:
        done += 1
        held += sent(pool.heard(0, Report(1, (answer(held.pop(0), 1),)), 0.1 * done)).get(0, [])
    assert done == 10
