"""A whole run of the rollout pool on a virtual clock, with every fault there is, from one seed.

`python tests/faults/simulation.py SEED` replays a seed and prints what happened. Samplers, network, cluster and learner
are fakes that take the pool's commands and give it events; the pool is the real one.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oracle import Books, BrokenRule, Drawn, as_text, require

from rayrlhf.engines.base import Sampling
from rayrlhf.rollout import goodput
from rayrlhf.rollout.fleet import Patience
from rayrlhf.rollout.leases import Answer, Command, Deliver, Fail, Kill, Lease, Order, Report, Send, Start, Stop
from rayrlhf.rollout.pool import Pool, PoolSettings
from rayrlhf.types import Prompt, SampleRequest

SAMPLING = Sampling(max_completion_length=32)
PROMPTS = [Prompt(index, tuple(range(index % 7 + 1))) for index in range(16)]
HEARTBEAT_S, TICK_S, MAX_PAUSE_S, SILENCE_S, LEASE_S = 1.5, 1.0, 4.0, 7.0, 25.0
BOUND_S = 600.0
"""After the last fault the run has to finish within this."""


@dataclass(frozen=True)
class Plan:
    """What a seed stands for."""

    num_samplers: int
    max_num_seqs: int
    staleness: int
    num_steps: int
    num_groups: int
    num_generations: int
    max_failures: int
    start_s: float
    faults_end: float
    fault_every: float
    """Seconds between two faults, on average."""
    drop: float
    """Share of reports that are lost; the same share arrives twice, and late."""
    kill_delay: float
    """Until a sampler that is given up really ends: it answers late."""
    lag: float
    """Until a sampler sees new weights, at most."""
    hopeless: str
    """Why the run cannot succeed and must be ended with a message; mostly empty."""

    @staticmethod
    def draw(rng: random.Random) -> Plan:
        """A plan at random."""
        hopeless = rng.choices(
            ["", "no room", "every start crashes", "every load crashes", "every load hangs"], [92, 2, 2, 2, 2]
        )[0]
        return Plan(
            num_samplers=rng.randint(1, 5),
            max_num_seqs=rng.choice([2, 4, 8]),
            staleness=rng.randint(0, 2),
            num_steps=rng.randint(2, 4),
            num_groups=rng.choice([1, 3, 6, 12]),
            num_generations=rng.randint(1, 4),
            max_failures=rng.choice([2, 3] if hopeless else [2, 3, 1000, 1000]),
            start_s=rng.choice([15.0, 40.0, 100.0]),
            faults_end=rng.uniform(5, 40),
            fault_every=rng.choice([1.5, 4.0, 10.0]),
            drop=rng.choice([0.0, 0.03, 0.1]),
            kill_delay=rng.choice([0.0, 3.0, 40.0]),
            lag=rng.choice([0.1, 1.0, 6.0]),
            hopeless=hopeless,
        )


@dataclass(eq=False)
class FakeSampler:
    """A process somewhere in the cluster."""

    id: int
    node: int
    is_placed: bool = False
    is_up: bool = False
    ended: bool = False
    frozen_until: float = 0.0
    """It does nothing before; infinity is a SIGSTOP that nobody takes back."""
    version: int = -1
    is_loading: bool = False
    queue: deque[Lease] = field(default_factory=deque)
    drawing: Lease | None = None
    versions: list[int] = field(default_factory=list)
    """Of the response that it draws."""
    unsent: list[Answer] = field(default_factory=list)
    watch: goodput.Stopwatch | None = None
    num_reports: int = 0


class Simulation:
    """One run. `trace` collects a line for every event and command."""

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.plan = plan = Plan.draw(self.rng)
        self.trace = trace
        self.now = 0.0
        self.outcome = ""
        patience = Patience(plan.start_s, SILENCE_S, plan.max_failures)
        settings = PoolSettings(plan.num_samplers, patience, LEASE_S, plan.max_num_seqs, MAX_PAUSE_S)
        self.pool = Pool(settings, 0.0)
        self.books = Books(plan.num_samplers, settings)
        self.samplers: dict[int, FakeSampler] = {}
        self.published = -1
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._num_acts = 0
        self._stalled_until, self._jump, self._last_event = 0.0, 0.0, 0.0
        self._num_orders, self._next_submit = 0, 0
        self._awaited: set[int] = set()
        self._complete: set[int] = set()

    def run(self) -> str:
        """How it ended: finished, or failed as it should."""
        self._after(0.0, self._arrive, self._tick)
        self._after(0.0, self._arrive, self._begin_step, 0)
        self._after(self.rng.expovariate(1 / self.plan.fault_every), self._fault)
        while not self.outcome:
            self.now, _, act, args = heapq.heappop(self._agenda)
            require(self.now < self.plan.faults_end + BOUND_S, f"no end: {self.pool.outlook()}, {self.books.members}")
            act(*args)
        require(not self.plan.hopeless or self.outcome == "failed", f"{self.plan.hopeless}, and yet it {self.outcome}")
        return self.outcome

    # Time.

    def _after(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self._num_acts += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._num_acts, act, args))

    def _arrive(self, act: Callable[..., None], *args: Any) -> None:
        """An event at the pool's process, which may stand still."""
        if self.now < self._stalled_until:
            self._after(self._stalled_until - self.now, self._arrive, act, *args)
        else:
            act(*args)

    def _inside(self, sampler: FakeSampler, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Something that a sampler's process does, unless it is dead, and not while it is frozen."""
        self._after(seconds, self._in_process, sampler, act, args)

    def _in_process(self, sampler: FakeSampler, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if sampler.ended or sampler.frozen_until == math.inf:
            return
        if self.now < sampler.frozen_until:
            self._inside(sampler, sampler.frozen_until - self.now, act, *args)
        else:
            act(sampler, *args)

    @property
    def _faulty(self) -> bool:
        return self.now < self.plan.faults_end and not self.plan.hopeless

    def _note(self, kind: str, what: Any) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:8.2f} {kind:8} {what if isinstance(what, str) else as_text(what)}")

    # The pool's process.

    def _clock(self) -> float:
        """The pool's clock. What the books add up, they add up by it too."""
        now = self.now + self._jump
        gap = now - self._last_event
        self._last_event = now
        self.books.pass_time(now, gap if gap > MAX_PAUSE_S else 0.0)
        return now

    def _tick(self) -> None:
        self._after(TICK_S, self._arrive, self._tick)
        self._obey(self.pool.tick(self._clock()))

    def _placed(self, member_id: int) -> None:
        self._note("event", f"placed {member_id}")
        now = self._clock()
        self.books.moved(member_id, "starting")
        self._obey(self.pool.placed(member_id, now))

    def _up(self, member_id: int) -> None:
        self._note("event", f"up {member_id}")
        now = self._clock()
        self.books.moved(member_id, "up")
        self._obey(self.pool.up(member_id, now))

    def _heard(self, member_id: int, made: int, report: Report) -> None:
        leases = [answer.lease_id for answer in report.answers]
        self._note("event", f"heard {member_id}: report {made}, version {report.version}, leases {leases}")
        now = self._clock()
        complete = self.books.reported(member_id, made, report)
        self._obey(self.pool.heard(member_id, report, now), complete)

    def _lost(self, member_id: int) -> None:
        self._note("event", f"lost {member_id}")
        now = self._clock()
        self.books.gone(member_id, was_lost=True)
        self._obey(self.pool.lost(member_id, "its process died", now))

    def _scale(self, size: int) -> None:
        self._note("event", f"scale {size}")
        now = self._clock()
        self.books.size = size
        self._obey(self.pool.scale(size, now))

    def _submit(self, order: Order) -> None:
        self._note("event", f"submit {order.id}, step {order.step}, from {order.min_version}, {order.purpose}")
        now = self._clock()
        self.books.ordered(order)
        self._obey(self.pool.submit(order, now))

    def _obey(self, commands: Sequence[Command], complete: set[int] | None = None) -> None:
        delivered = set()
        for command in commands:
            self._note("command", command)
            match command:
                case Start(member):
                    self.books.started(member)
                    self._start(member)
                case Send(member, leases):
                    held_by = self.pool.fleet.members.get(member)
                    self.books.sent(member, leases, held_by and held_by.phase)
                    self._inside(self.samplers[member], self._wire(), self._receive, leases)
                case Stop(member):
                    self.books.gone(member, was_lost=False)
                    self.samplers[member].ended = True
                case Kill(member, why):
                    self.books.killed(member, why)
                    self._after(self.plan.kill_delay, self._end, self.samplers[member])
                case Deliver(order):
                    delivered.add(order)
                case Fail(message):
                    require(self.books.deserves(message), f"the run was ended without need: {message}")
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
            require(not self.books.orders, "orders are left")
            self._scale(0)
            self._shut()
            return
        self.step, self.published = step, step
        for sampler in self.samplers.values():
            self._see_weights(sampler)
        while self._next_submit <= min(step + self.plan.staleness, self.plan.num_steps - 1):
            self._order(self._next_submit, max(0, self._next_submit - self.plan.staleness), "train")
            self._next_submit += 1
        if self.rng.random() < 0.2:
            self._order(step, step, "evaluate")
        self._awaited = {order.id for order in self.books.orders.values() if order.step == step}
        self._try_step()

    def _order(self, step: int, min_version: int, purpose: Any) -> None:
        num_generations = self.plan.num_generations if purpose == "train" else 1
        drawn: dict[int, int] = {}
        requests = []
        for _ in range(self.plan.num_groups):
            prompt = self.rng.choice(PROMPTS)
            for _ in range(num_generations):
                drawn[prompt.id] = drawn.get(prompt.id, -1) + 1
                requests.append(SampleRequest(prompt, drawn[prompt.id], seed=0))
        self._num_orders += 1
        self._submit(Order(self._num_orders, step, tuple(requests), SAMPLING, min_version, purpose))

    def _try_step(self) -> None:
        if not self._awaited or not self._awaited <= self._complete:
            return
        samples = {order: self.books.taken(order, self.pool.take(order)) for order in sorted(self._awaited)}
        self._awaited = set()
        self._after(self.rng.uniform(0.2, 4), self._arrive, self._settle, samples)

    def _settle(self, samples: dict[int, list[Drawn]]) -> None:
        for order, drawn in samples.items():
            rejected = {one.key[1:]: "no reward" for one in drawn if self.rng.random() < 0.1}
            self.pool.settle(order, rejected)
            self.books.settled(order, rejected)
        self.books.check(self.pool)
        self._begin_step(self.step + 1)

    def _shut(self) -> None:
        """All samplers have to leave, whatever state they are in."""
        if self.books.members:
            self._after(TICK_S, self._shut)
        else:
            self._clock()
            self.books.check_account(self.pool.fleet.account(self._last_event))
            self.outcome = "finished"

    # The cluster and the samplers.

    def _wire(self) -> float:
        return self.rng.uniform(0.0, 0.1)

    def _start(self, member_id: int) -> None:
        sampler = self.samplers[member_id] = FakeSampler(member_id, node=self.rng.randrange(3))
        if self.plan.hopeless == "no room":
            return
        seconds = self.rng.uniform(0.1, 4)
        if self._faulty and self.rng.random() < 0.1:
            seconds = self.rng.uniform(0, self.plan.faults_end)
        self._inside(sampler, seconds, self._get_room)

    def _get_room(self, sampler: FakeSampler) -> None:
        sampler.is_placed = True
        self._after(self._wire(), self._arrive, self._placed, sampler.id)
        if self.plan.hopeless == "every start crashes":
            self._inside(sampler, 1.0, self._crash)
        else:
            self._inside(sampler, self.rng.uniform(1, 6), self._get_ready)

    def _get_ready(self, sampler: FakeSampler) -> None:
        sampler.is_up = True
        sampler.watch = goodput.Stopwatch(goodput.WAIT_FOR_WEIGHTS, self.now)
        self._after(self._wire(), self._arrive, self._up, sampler.id)
        self._see_weights(sampler)
        self._beat(sampler)

    def _beat(self, sampler: FakeSampler) -> None:
        self._report(sampler)
        self._inside(sampler, HEARTBEAT_S, self._beat)

    def _report(self, sampler: FakeSampler) -> None:
        assert sampler.watch is not None
        answers, sampler.unsent = tuple(sampler.unsent), []
        report = Report(sampler.version, answers, sampler.drawing is not None, sampler.watch.seconds(self.now))
        sampler.num_reports += 1
        luck = self.rng.random() if self._faulty else 1.0
        drop = self.plan.drop
        if luck >= drop:
            self._after(self._wire(), self._arrive, self._heard, sampler.id, sampler.num_reports, report)
        if luck < 3 * drop and luck >= drop:  # again and late
            late = self.rng.uniform(0, 2 * LEASE_S if luck < 2 * drop else 3.0)
            self._after(late, self._arrive, self._heard, sampler.id, sampler.num_reports, report)

    def _see_weights(self, sampler: FakeSampler) -> None:
        if sampler.is_up:
            self._inside(sampler, self.rng.uniform(0, self.plan.lag), self._begin_load)

    def _begin_load(self, sampler: FakeSampler) -> None:
        if sampler.is_loading or sampler.version == self.published:
            return
        sampler.is_loading = True
        if self.plan.hopeless == "every load crashes":
            self._crash(sampler)
        elif self.plan.hopeless == "every load hangs" or (self._faulty and self.rng.random() < 0.08):
            self._note("fault", f"sampler {sampler.id} loads for ever")
        else:
            self._inside(sampler, self.rng.uniform(0.05, 1), self._end_load, self.published)

    def _end_load(self, sampler: FakeSampler, version: int) -> None:
        sampler.is_loading = False
        self._change_version(sampler, version)

    def _change_version(self, sampler: FakeSampler, version: int) -> None:
        sampler.version = version
        sampler.versions.append(version)
        if self.rng.random() < 0.5:
            self._report(sampler)
        if version != self.published:
            self._see_weights(sampler)

    def _receive(self, sampler: FakeSampler, leases: tuple[Lease, ...]) -> None:
        sampler.queue.extend(leases)
        self._draw(sampler)

    def _draw(self, sampler: FakeSampler) -> None:
        assert sampler.watch is not None
        if sampler.drawing is not None:
            return
        sampler.watch.switch(goodput.GENERATE if sampler.queue else goodput.WAIT_FOR_PROMPTS, self.now)
        if sampler.queue:
            sampler.drawing, sampler.versions = sampler.queue.popleft(), [sampler.version]
            self._inside(sampler, self.rng.uniform(0.2, 2.5), self._drawn)

    def _drawn(self, sampler: FakeSampler) -> None:
        lease, versions = sampler.drawing, tuple(sampler.versions)
        assert lease is not None
        rollouts = tuple(Drawn(key, sampler.id, lease.id, versions) for key in lease.keys)
        sampler.drawing = None
        sampler.unsent.append(Answer(lease.id, min(versions), rollouts))
        if self.rng.random() < 0.8:
            self._report(sampler)
        self._draw(sampler)

    # Faults.

    def _fault(self) -> None:
        if not self._faulty:
            return
        self._after(self.rng.expovariate(1 / self.plan.fault_every), self._fault)
        there = [sampler for sampler in self.samplers.values() if not sampler.ended]
        faults = [self._crash, self._crash, self._freeze, self._lose_weights]
        if self.rng.random() < 0.3 or not there:
            self.rng.choice([self._resize, self._resize, self._stall, self._jump_ahead])()
        elif self.rng.random() < 0.15:
            node = self.rng.randrange(4)
            for sampler in there:
                if node in (sampler.node, 3):
                    self._crash(sampler)
        else:
            self.rng.choice(faults)(self.rng.choice(there))

    def _end(self, sampler: FakeSampler) -> None:
        sampler.ended = True

    def _crash(self, sampler: FakeSampler) -> None:
        """Its process dies. Mostly the pool is told; else it notices that nothing comes any more."""
        self._note("fault", f"sampler {sampler.id} crashes")
        sampler.ended = True
        if self.rng.random() < 0.7 or not sampler.is_placed:
            self._after(self.rng.uniform(0, 2), self._arrive, self._lost, sampler.id)

    def _freeze(self, sampler: FakeSampler) -> None:
        forever = sampler.is_placed and self.rng.random() < 0.5
        sampler.frozen_until = math.inf if forever else self.now + self.rng.uniform(1, 3 * SILENCE_S)
        self._note("fault", f"sampler {sampler.id} freezes until {sampler.frozen_until:.1f}")

    def _lose_weights(self, sampler: FakeSampler) -> None:
        """Its engine comes back with older ones."""
        if sampler.is_up:
            version = self.rng.randint(-1, sampler.version)
            self._note("fault", f"sampler {sampler.id} falls back to version {version}")
            self._change_version(sampler, version)

    def _resize(self) -> None:
        self._after(0.0, self._arrive, self._scale, self.rng.randint(1, 6))

    def _stall(self) -> None:
        self._stalled_until = max(self._stalled_until, self.now + self.rng.uniform(0.5, 30))
        self._note("fault", f"the pool stands still until {self._stalled_until:.1f}")

    def _jump_ahead(self) -> None:
        seconds = self.rng.choice([1.0, 10.0, 100.0])
        self._jump += seconds
        self._note("fault", f"the pool's clock jumps {seconds:g} s ahead")


def simulate(seed: int, trace: list[str] | None = None) -> str:
    """How the seed's run ended. Raises BrokenRule with the command that replays it."""
    simulation = Simulation(seed, trace)
    try:
        return simulation.run()
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if not isinstance(error, BrokenRule) else error
        raise BrokenRule(
            f"seed {seed}, after {simulation.now:.2f} s: {what}; replay: python tests/faults/simulation.py {seed}"
        ) from error


if __name__ == "__main__":
    lines: list[str] = []
    try:
        lines.append(simulate(int(sys.argv[1]), lines))
    except BrokenRule as error:
        lines.append(str(error))
    print("\n".join(lines))
