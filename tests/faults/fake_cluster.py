"""Fake samplers in a fake cluster: they carry out the pool's commands, unless a fault interferes."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from fault_plan import HEARTBEAT_S, LEASE_S, SILENCE_S, Plan
from oracle import Sampled
from timeline import Timeline

from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Answer, Lease, Report


class PoolProcess(Protocol):
    """Where events go."""

    def placed(self, member_id: int) -> None: ...
    def up(self, member_id: int) -> None: ...
    def heard(self, member_id: int, made: int, report: Report) -> None: ...
    def lost(self, member_id: int) -> None: ...
    def scale(self, size: int) -> None: ...


@dataclass(eq=False)
class FakeSampler:
    """A process somewhere in the cluster."""

    id: int
    node: int
    is_placed: bool = False
    is_up: bool = False
    ended: bool = False
    frozen_until: float = 0.0
    """It does nothing before; infinity is a SIGSTOP that nobody undoes."""
    version: int = -1
    is_loading: bool = False
    queue: deque[Lease] = field(default_factory=deque)
    generating: Lease | None = None
    versions: list[int] = field(default_factory=list)
    """That generated its current response so far."""
    unsent: list[Answer] = field(default_factory=list)
    watch: goodput.Stopwatch | None = None
    num_reports: int = 0


class Cluster:
    """All sampler processes, including dead ones, and the network to them."""

    def __init__(self, plan: Plan, rng: random.Random, time: Timeline, pool: PoolProcess) -> None:
        self.samplers: dict[int, FakeSampler] = {}
        self.published = -1
        self._plan, self._rng, self._time, self._pool = plan, rng, time, pool

    # What the pool's commands ask for.

    def start(self, member_id: int) -> None:
        """A new process, as soon as there is room."""
        sampler = self.samplers[member_id] = FakeSampler(member_id, node=self._rng.randrange(3))
        if self._plan.hopeless == "no room":
            return
        seconds = self._rng.uniform(0.1, 4)
        if self._faulty and self._rng.random() < 0.1:
            seconds = self._rng.uniform(0, self._plan.faults_end)
        self._inside(sampler, seconds, self._get_room)

    def send(self, member_id: int, leases: tuple[Lease, ...]) -> None:
        """Leases on their way to a sampler."""
        self._inside(self.samplers[member_id], self._wire(), self._receive, leases)

    def kill(self, member_id: int, after: float) -> None:
        """The process ends, at once or somewhat later."""
        self._time.after(after, self._end, self.samplers[member_id])

    def publish(self, version: int) -> None:
        """New weights: samplers see them one after another."""
        self.published = version
        for sampler in self.samplers.values():
            self._see_weights(sampler)

    # What samplers do.

    def _wire(self) -> float:
        return self._rng.uniform(0.0, 0.1)

    @property
    def _faulty(self) -> bool:
        return self._time.now < self._plan.faults_end and not self._plan.hopeless

    def _inside(self, sampler: FakeSampler, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Schedule what a sampler's process does: never once it is dead, and not while it is frozen."""
        self._time.after(seconds, self._in_process, sampler, act, args)

    def _in_process(self, sampler: FakeSampler, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if sampler.ended or sampler.frozen_until == math.inf:
            return
        if self._time.now < sampler.frozen_until:
            self._inside(sampler, sampler.frozen_until - self._time.now, act, *args)
        else:
            act(sampler, *args)

    def _get_room(self, sampler: FakeSampler) -> None:
        sampler.is_placed = True
        self._time.after(self._wire(), self._time.arrive, self._pool.placed, sampler.id)
        if self._plan.hopeless == "every start crashes":
            self._inside(sampler, 1.0, self._crash)
        else:
            self._inside(sampler, self._rng.uniform(1, 6), self._get_ready)

    def _get_ready(self, sampler: FakeSampler) -> None:
        sampler.is_up = True
        sampler.watch = goodput.Stopwatch(goodput.WAIT_FOR_WEIGHTS, self._time.now)
        self._time.after(self._wire(), self._time.arrive, self._pool.up, sampler.id)
        self._see_weights(sampler)
        self._beat(sampler)

    def _beat(self, sampler: FakeSampler) -> None:
        self._report(sampler)
        self._inside(sampler, HEARTBEAT_S, self._beat)

    def _report(self, sampler: FakeSampler) -> None:
        assert sampler.watch is not None
        answers, sampler.unsent = tuple(sampler.unsent), []
        report = Report(sampler.version, answers, sampler.generating is not None, sampler.watch.seconds(self._time.now))
        sampler.num_reports += 1
        luck = self._rng.random() if self._faulty else 1.0
        drop = self._plan.drop
        if luck >= drop:
            self._time.after(self._wire(), self._time.arrive, self._pool.heard, sampler.id, sampler.num_reports, report)
        if luck < 3 * drop and luck >= drop:  # again and late
            late = self._rng.uniform(0, 2 * LEASE_S if luck < 2 * drop else 3.0)
            self._time.after(late, self._time.arrive, self._pool.heard, sampler.id, sampler.num_reports, report)

    def _see_weights(self, sampler: FakeSampler) -> None:
        if sampler.is_up:
            self._inside(sampler, self._rng.uniform(0, self._plan.lag), self._begin_load)

    def _begin_load(self, sampler: FakeSampler) -> None:
        if sampler.is_loading or sampler.version == self.published:
            return
        sampler.is_loading = True
        if self._plan.hopeless == "every load crashes":
            self._crash(sampler)
        elif self._plan.hopeless == "every load hangs" or (self._faulty and self._rng.random() < 0.08):
            self._time.note("fault", f"sampler {sampler.id} loads forever")
        else:
            self._inside(sampler, self._rng.uniform(0.05, 1), self._end_load, self.published)

    def _end_load(self, sampler: FakeSampler, version: int) -> None:
        sampler.is_loading = False
        self._change_version(sampler, version)

    def _change_version(self, sampler: FakeSampler, version: int) -> None:
        sampler.version = version
        sampler.versions.append(version)
        if self._rng.random() < 0.5:
            self._report(sampler)
        if version != self.published:
            self._see_weights(sampler)

    def _receive(self, sampler: FakeSampler, leases: tuple[Lease, ...]) -> None:
        sampler.queue.extend(leases)
        self._generate(sampler)

    def _generate(self, sampler: FakeSampler) -> None:
        assert sampler.watch is not None
        if sampler.generating is not None:
            return
        sampler.watch.switch(goodput.GENERATE if sampler.queue else goodput.WAIT_FOR_PROMPTS, self._time.now)
        if sampler.queue:
            sampler.generating, sampler.versions = sampler.queue.popleft(), [sampler.version]
            self._inside(sampler, self._rng.uniform(0.2, 2.5), self._generated)

    def _generated(self, sampler: FakeSampler) -> None:
        lease, versions = sampler.generating, tuple(sampler.versions)
        assert lease is not None
        rollouts = tuple(Sampled(key, sampler.id, lease.id, versions) for key in lease.keys)
        sampler.generating = None
        sampler.unsent.append(Answer(lease.id, min(versions), rollouts))
        if self._rng.random() < 0.8:
            self._report(sampler)
        self._generate(sampler)

    # Faults.

    def go_wrong(self) -> None:
        """A fault now and then, until the plan's faults end."""
        if not self._faulty:
            return
        self._time.after(self._rng.expovariate(1 / self._plan.fault_every), self.go_wrong)
        there = [sampler for sampler in self.samplers.values() if not sampler.ended]
        faults = [self._crash, self._crash, self._freeze, self._lose_weights]
        if self._rng.random() < 0.3 or not there:
            self._rng.choice([self._resize, self._resize, self._stall, self._jump_ahead])()
        elif self._rng.random() < 0.15:
            node = self._rng.randrange(4)
            for sampler in there:
                if node in (sampler.node, 3):
                    self._crash(sampler)
        else:
            self._rng.choice(faults)(self._rng.choice(there))

    def _end(self, sampler: FakeSampler) -> None:
        sampler.ended = True

    def _crash(self, sampler: FakeSampler) -> None:
        """Its process dies. Mostly the pool is told; else it notices that no more reports come."""
        self._time.note("fault", f"sampler {sampler.id} crashes")
        sampler.ended = True
        if self._rng.random() < 0.7 or not sampler.is_placed:
            self._time.after(self._rng.uniform(0, 2), self._time.arrive, self._pool.lost, sampler.id)

    def _freeze(self, sampler: FakeSampler) -> None:
        forever = sampler.is_placed and self._rng.random() < 0.5
        sampler.frozen_until = math.inf if forever else self._time.now + self._rng.uniform(1, 3 * SILENCE_S)
        self._time.note("fault", f"sampler {sampler.id} freezes until {sampler.frozen_until:.1f}")

    def _lose_weights(self, sampler: FakeSampler) -> None:
        """Its engine returns to older ones."""
        if sampler.is_up:
            version = self._rng.randint(-1, sampler.version)
            self._time.note("fault", f"sampler {sampler.id} falls back to version {version}")
            self._change_version(sampler, version)

    def _resize(self) -> None:
        self._time.after(0.0, self._time.arrive, self._pool.scale, self._rng.randint(1, 6))

    def _stall(self) -> None:
        self._time.stall(self._rng.uniform(0.5, 30))

    def _jump_ahead(self) -> None:
        self._time.jump(self._rng.choice([1.0, 10.0, 100.0]))
