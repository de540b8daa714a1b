"""A whole run of the rollout pool on a virtual clock, with every kind of fault, from one seed.

`python tests/faults/simulation.py SEED` replays a seed and prints what happened. Samplers, network, cluster and learner
are fakes that carry out the pool's commands and send it events; the pool is the real one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

from fake_cluster import Cluster
from fault_plan import BOUND_S, LEASE_S, MAX_PAUSE_S, SILENCE_S, TICK_S, Plan
from oracle import Books, BrokenRule, Sampled, require
from timeline import Timeline

from rayrlhf.engines.base import Sampling
from rayrlhf.pool.commands import Accept, Command, Deliver, Fail, Kill, Send, Start, Stop
from rayrlhf.pool.fleet import Patience
from rayrlhf.pool.leases import Report, SampleBatch
from rayrlhf.pool.pool import Pool, PoolSettings
from rayrlhf.types import Prompt, Sample

SAMPLING = Sampling(max_completion_length=32)
PROMPTS = [Prompt(index, tuple(range(index % 7 + 1))) for index in range(16)]


class Simulation:
    """One run. `trace` collects a line for every event and command."""

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.plan = plan = Plan.draw(self.rng)
        self.time = Timeline(trace)
        self.cluster = Cluster(plan, self.rng, self.time, self)
        self.outcome = ""
        patience = Patience(plan.start_s, SILENCE_S, plan.max_failures)
        settings = PoolSettings(plan.num_samplers, patience, LEASE_S, plan.num_slots, MAX_PAUSE_S)
        self.pool = Pool(settings, 0.0)
        self.books = Books(plan.num_samplers, settings)
        self._step, self._last_event = 0, 0.0
        self._num_batches, self._next_submit = 0, 0
        self._awaited: set[int] = set()
        self._complete: set[int] = set()

    def run(self) -> str:
        """How it ended: finished, or failed as it had to."""
        self.time.after(0.0, self.time.arrive, self._tick)
        self.time.after(0.0, self.time.arrive, self._begin_step, 0)
        self.time.after(self.rng.expovariate(1 / self.plan.fault_every), self.cluster.go_wrong)
        while not self.outcome:
            self.time.go_on()
            if self.time.now >= self.plan.faults_end + BOUND_S:
                raise BrokenRule(f"no end: {self.pool.outlook()}, {self.books.members}")
        require(not self.plan.hopeless or self.outcome == "failed", f"{self.plan.hopeless}, but it {self.outcome}")
        return self.outcome

    # The pool's process.

    def _clock(self) -> float:
        """Comes first in every event: the pool's clock, by which the books add up seconds too."""
        now = self.time.pool_now
        gap, self._last_event = now - self._last_event, now
        self.books.pass_time(now, gap if gap > MAX_PAUSE_S else 0.0)
        return now

    def _tick(self) -> None:
        self.time.after(TICK_S, self.time.arrive, self._tick)
        self._obey(self.pool.tick(self._clock()))

    def placed(self, member_id: int) -> None:
        self.time.note("event", f"placed {member_id}")
        now = self._clock()
        self.books.moved(member_id, "starting")
        self._obey(self.pool.placed(member_id, now))

    def up(self, member_id: int) -> None:
        self.time.note("event", f"up {member_id}")
        now = self._clock()
        self.books.moved(member_id, "up")
        self._obey(self.pool.up(member_id, now))

    def heard(self, member_id: int, made: int, report: Report) -> None:
        leases = [answer.lease_id for answer in report.answers]
        self.time.note("event", f"heard {member_id}: report {made}, version {report.version}, leases {leases}")
        now = self._clock()
        complete = self.books.reported(member_id, made, report)
        self._obey(self.pool.heard(member_id, report, now), complete)

    def lost(self, member_id: int) -> None:
        self.time.note("event", f"lost {member_id}")
        now = self._clock()
        self.books.gone(member_id, was_lost=True)
        self._obey(self.pool.lost(member_id, "its process died", now))

    def scale(self, size: int) -> None:
        self.time.note("event", f"scale {size}")
        now = self._clock()
        self.books.size = size
        self._obey(self.pool.scale(size, now))

    def _submit(self, batch: SampleBatch) -> None:
        self.time.note("event", f"submit {batch.id}, step {batch.step}, from {batch.min_version}, {batch.purpose}")
        now = self._clock()
        self.books.submitted(batch)
        self._obey(self.pool.submit(batch, now))

    def _obey(self, commands: Sequence[Command], complete: set[int] | None = None) -> None:
        delivered = set()
        for command in commands:
            self.time.note("command", command)
            match command:
                case Start(member):
                    self.books.started(member)
                    self.cluster.start(member)
                case Send(member, leases):
                    self.books.sent(member, leases, self.pool.fleet.members.get(member))
                    self.cluster.send(member, leases)
                case Stop(member):
                    self.books.gone(member, was_lost=False)
                    self.cluster.kill(member, after=0.0)
                case Kill(member, why):
                    self.books.killed(member, why)
                    self.cluster.kill(member, after=self.plan.kill_delay)
                case Accept(batch_id, rollouts):
                    self.books.announced(batch_id, rollouts)
                case Deliver(batch_id):
                    self.books.delivered(batch_id)
                    delivered.add(batch_id)
                case Fail(message):
                    require(self.books.deserves(message), f"the run ended without need: {message}")
                    self.outcome = "failed"
                    return
        require(delivered == (complete or set()), f"delivered {delivered}, complete are {complete}")
        self.books.check(self.pool)
        if delivered:
            self._complete |= delivered
            self._try_step()

    # The learner.

    def _begin_step(self, step: int) -> None:
        if step == self.plan.num_steps:
            require(not self.books.batches, "batches are left")
            self.scale(0)
            self._shut()
            return
        self._step = step
        self.cluster.publish(step)
        while self._next_submit <= min(step + self.plan.staleness, self.plan.num_steps - 1):
            self._sample(self._next_submit, max(0, self._next_submit - self.plan.staleness), "train")
            self._next_submit += 1
        if self.rng.random() < 0.2:
            self._sample(step, step, "evaluate")
        self._awaited = {batch.id for batch in self.books.batches.values() if batch.step == step}
        self._try_step()

    def _sample(self, step: int, min_version: int, purpose: Any) -> None:
        num_generations = self.plan.num_generations if purpose == "train" else 1
        last_id: dict[int, int] = {}
        samples = []
        for _ in range(self.plan.num_groups):
            prompt = self.rng.choice(PROMPTS)
            for _ in range(num_generations):
                last_id[prompt.id] = last_id.get(prompt.id, -1) + 1
                samples.append(Sample(prompt, last_id[prompt.id], seed=0))
        self._num_batches += 1
        self._submit(SampleBatch(self._num_batches, step, tuple(samples), SAMPLING, min_version, purpose))

    def _try_step(self) -> None:
        if not self._awaited or not self._awaited <= self._complete:
            return
        taken = {batch_id: self.books.taken(batch_id, self.pool.take(batch_id)) for batch_id in sorted(self._awaited)}
        self._awaited = set()
        self.time.after(self.rng.uniform(0.2, 4), self.time.arrive, self._settle, taken)

    def _settle(self, taken: dict[int, list[Sampled]]) -> None:
        for batch_id, responses in taken.items():
            rejected = {sampled.key[1:]: "no reward" for sampled in responses if self.rng.random() < 0.1}
            self.pool.settle(batch_id, rejected)
            self.books.settled(batch_id, rejected)
        self.books.check(self.pool)
        self._begin_step(self._step + 1)

    def _shut(self) -> None:
        """All samplers have to leave, whatever state they are in."""
        if self.books.members:
            self.time.after(TICK_S, self._shut)
        else:
            self._clock()
            self.books.check_account(self.pool.fleet.account(self._last_event))
            self.outcome = "finished"


def simulate(seed: int, trace: list[str] | None = None) -> str:
    """How the seed's run ended. Raises BrokenRule with the command that replays it."""
    simulation = Simulation(seed, trace)
    try:
        return simulation.run()
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if not isinstance(error, BrokenRule) else error
        raise BrokenRule(
            f"seed {seed}, after {simulation.time.now:.2f} s: {what}; replay: python tests/faults/simulation.py {seed}"
        ) from error


if __name__ == "__main__":
    lines: list[str] = []
    try:
        lines.append(simulate(int(sys.argv[1]), lines))
    except BrokenRule as error:
        lines.append(str(error))
    print("\n".join(lines))
