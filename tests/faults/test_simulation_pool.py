"""Thousands of runs of the rollout pool in which everything goes wrong, and proof that they detect a broken pool."""

from collections import Counter
from dataclasses import replace

import pytest
from oracle import BrokenRule
from simulation import Plan, Simulation, simulate

from rayrlhf.pool.commands import Accept
from rayrlhf.pool.fleet import Fleet
from rayrlhf.pool.ledger import Ledger, State
from rayrlhf.pool.member import Member
from rayrlhf.pool.pool import Pool

pytestmark = pytest.mark.faults

SEEDS_PER_TEST = 1_000
SEEDS_TO_NOTICE = 400


@pytest.mark.parametrize("block", range(10))
def test_every_sample_ends_once_and_every_run_ends_whatever_fails(block):
    for seed in range(block * SEEDS_PER_TEST, (block + 1) * SEEDS_PER_TEST):
        simulate(seed)


def test_a_seed_always_gives_the_same_run():
    first, second = [], []
    assert simulate(5, first) == simulate(5, second)
    assert len(first) > 50
    assert first == second


def test_the_runs_meet_every_fault_and_mostly_finish():
    seen, outcomes, ignored = Counter(), Counter(), Counter()
    for seed in range(300):
        lines = []
        simulation = Simulation(seed, lines)
        outcomes[simulation.run()] += 1
        ignored += simulation.pool.ignored
        text = "\n".join(lines)
        seen.update(kind for kind in FAULTS if kind in text)
    assert outcomes["finished"] > 240
    assert outcomes["failed"] > 10
    assert ignored["late"] > 50
    assert ignored["stale"] > 5
    assert all(seen[kind] >= 3 for kind in FAULTS), seen


FAULTS = (
    "crashes",
    "freezes until inf",
    "falls back to version",
    "loads forever",
    "the pool stands still",
    "clock jumps",
    "scale",
    "it sent no report",
    "it was not ready",
    "it held a lease",
    "its weights were still",
    "the fleet was scaled down",
    "times in a row",
    "s for room for a sampler",
    "Stop(",
)


def test_a_failing_seed_names_the_command_that_replays_it(monkeypatch):
    monkeypatch.setattr(Plan, "draw", lambda rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulate(77)
    monkeypatch.undo()
    monkeypatch.setattr(Pool, "_take_back", lambda pool, member: None)
    with pytest.raises(BrokenRule, match=r"replay: python tests/faults/simulation\.py \d+"):
        notice()


def notice() -> None:
    for seed in range(SEEDS_TO_NOTICE):
        simulate(seed)


def any_lease(pool, member, answer):
    return next(iter(member.leases.values()), None) if member else None


def whoever_answers(pool, member, answer, accept=Pool._accept):
    keys = {sampled.key for sampled in answer.rollouts}
    for holder in pool.fleet.members.values():
        for lease in holder.leases.values():
            if keys == set(lease.keys):
                return accept(pool, holder, replace(answer, lease_id=lease.id))
    return accept(pool, member, answer)


def drop_groups_of_lost_samplers(pool, member):
    for lease in member.leases.values():
        pool.ledger.move(lease.keys, State.PENDING)


def leave_leases(pool, member):
    """As if leases did not end with their sampler."""


def believe_the_last_report(member, report, now):
    member.last_heard, member.report = now, report


def count_without_ending(ledger, keys, reason):
    ledger.reasons[reason] += len(list(keys))


def reject_as_trained(ledger, keys, reason):
    ledger.move(keys, State.TRAINED)


def announce_nothing(pool, member, answer, accept=Pool._accept):
    return [command for command in accept(pool, member, answer) if not isinstance(command, Accept)]


def announce_twice(pool, member, answer, accept=Pool._accept):
    for command in accept(pool, member, answer):
        yield from [command] * (1 + isinstance(command, Accept))


def announce_whatever_comes(pool, member, answer, accept=Pool._accept):
    yield from [*accept(pool, member, answer)] or [Accept(answer.rollouts[0].key[0], answer.rollouts)]


def announce_last(pool, member, answer, accept=Pool._accept):
    return reversed([*accept(pool, member, answer)])


MUTANTS = {
    "an answer counts for any lease of its sampler": (Pool, "_lease", any_lease),
    "an answer counts whoever gives it": (Pool, "_accept", whoever_answers),
    "tokens of any age count": (Pool, "_is_fresh", lambda pool, lease, answer: True),
    "no answer is ever fresh": (Pool, "_is_fresh", lambda pool, lease, answer: False),
    "leases go to samplers of any version": (Member, "version", property(lambda member: 1_000)),
    "leases of lost samplers stay theirs": (Pool, "_take_back", leave_leases),
    "groups of lost samplers are not sampled again": (Pool, "_take_back", drop_groups_of_lost_samplers),
    "rejected samples never end": (Ledger, "reject", count_without_ending),
    "rejected samples count as trained": (Ledger, "reject", reject_as_trained),
    "leaving samplers get leases": (
        Fleet,
        "ready",
        property(lambda fleet: [member for member in fleet.members.values() if member.is_up]),
    ),
    "nobody is ever overdue": (Fleet, "overdue", lambda fleet, now, needed: iter(())),
    "an old report counts as news": (Member, "hear", believe_the_last_report),
    "samplers are blamed when the pool stood still": (Fleet, "skip", lambda fleet, seconds: None),
    "nobody is sent away": (Fleet, "_send_away", lambda fleet, number: []),
    "waiting for room has no end": (Fleet, "starved", lambda fleet, now: None),
    "silent seconds are not accounted": (Member, "unreported", lambda member, now: 0.0),
    "accepted groups are not announced": (Pool, "_accept", announce_nothing),
    "groups are announced twice": (Pool, "_accept", announce_twice),
    "answers that do not count are announced": (Pool, "_accept", announce_whatever_comes),
    "a batch is delivered before its last group is announced": (Pool, "_accept", announce_last),
    "the dead are not accounted": (Fleet, "_close_dead", lambda fleet, number, now: fleet._dead_since.clear()),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_runs_notice_that(monkeypatch, mutant):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(BrokenRule):
        notice()
