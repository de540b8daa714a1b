"""The `RolloutPool` actor: the pool's logic at work on the cluster, and what the loop and the command line ask it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray

from rayrlhf.cluster.actor_group import wait_for
from rayrlhf.cluster.connection import connect
from rayrlhf.config import UserError
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.pool.leases import SampleBatch
from rayrlhf.pool.pool import Pool, PoolSettings
from rayrlhf.pool.runner import Runner
from rayrlhf.pool.status import SamplerStatus, Status
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.sampler_actor import Launcher, RayLink
from rayrlhf.run_directory import runs_root
from rayrlhf.types import Rollouts

NAMESPACE = "rayrlhf"
"""Where a run's pool is found by the run's name."""
ANSWER_S = 30.0
END_S = 5.0


@dataclass(frozen=True)
class LoopStatus:
    """Where the loop is."""

    step: int
    """Steps done."""
    num_steps: int
    version: int
    """Newest published weights."""
    seconds: Mapping[str, float]
    """Of the learners, by activity."""


def actor_name(run: str) -> str:
    """Of a run's pool."""
    return f"rollouts of {run}"


@ray.remote(num_cpus=0)
class RolloutPool:
    """One per run; it owns the sampler processes.

    A response counts once this actor holds its tokens, so no node's death can take it back.
    """

    def __init__(self, settings: PoolSettings, launcher: Launcher, config: RolloutsConfig) -> None:
        self._settings, self._launcher, self._config = settings, launcher, config
        self._runner: Runner | None = None
        self._began = 0.0
        self._loop = LoopStatus(step=0, num_steps=0, version=-1, seconds={})
        self._lines: list[str] = []

    async def ready(self) -> None:
        """Start the samplers; answers once those that have a place are ready."""
        self._began = time.monotonic()
        self._pool = Pool(self._settings, self._began)
        self._runner = Runner(self._pool, self._launcher, self._config.autoscale, self._lines.append)
        await self._runner.ready()

    async def submit(self, order: SampleBatch) -> None:
        """Have an order drawn."""
        self._running.submit(order)

    async def take(self, order_id: int) -> tuple[Status, Rollouts]:
        """An order's rollouts, once all are there, ordered by (prompt id, sample id)."""
        parts = await self._running.take(order_id)
        return self._status(), Rollouts.concat(parts)

    async def settle(self, order_id: int, rejected: Mapping[tuple[int, int], str]) -> None:
        """Say what became of the samples of an order that was taken."""
        self._pool.settle(order_id, rejected)

    async def published(self, version: int) -> None:
        """There are newer weights."""
        self._loop = replace(self._loop, version=version)

    async def at(self, step: int, num_steps: int, seconds: Mapping[str, float]) -> None:
        """Where the loop is now."""
        self._loop = replace(self._loop, step=step, num_steps=num_steps, seconds=seconds)

    async def scale(self, num_samplers: int) -> int:
        """Another number of samplers from now on. Returns how many there were to be."""
        before = self._pool.fleet.size
        self._running.scale(num_samplers)
        return before

    async def status(self) -> tuple[LoopStatus, Status]:
        """A snapshot."""
        return self._loop, self._status()

    async def lines(self) -> list[str]:
        """What happened since the last call, for people."""
        lines, self._lines[:] = list(self._lines), []
        return lines

    async def close(self) -> None:
        """End all samplers."""
        if self._runner is not None:
            self._runner.close()

    @property
    def _running(self) -> Runner:
        if self._runner is None:
            raise UserError("the run is just starting: ask again")
        return self._runner

    def _status(self) -> Status:
        now = time.monotonic()
        links = self._running.links()

        def of(member: Any) -> SamplerStatus:
            link = links.get(member.id)
            there = link.whereabouts if isinstance(link, RayLink) else None
            return SamplerStatus.of(member, now, there.process.pid if there else None, there.node if there else None)

        samplers = tuple(of(member) for member in self._pool.fleet.members.values())
        return Status.of(self._pool, samplers, now, now - self._began)


def check_not_alive(run: str) -> None:
    """Raises UserError if a run of this name is alive on this cluster: two would write into one folder."""
    if run in _alive():
        raise UserError(f"a run named {run!r} is alive on this cluster: choose another run.name, or end its job")


def start_pool(config: PPOConfig, launcher: Launcher) -> Any:
    """The actor of a run, found by the run's name."""
    sampler, name = config.sampler, config.run.name
    settings = config.rollouts.pool(sampler.num_workers, sampler.engine.max_num_seqs, config.timeouts.start_s)
    return RolloutPool.options(name=actor_name(name), namespace=NAMESPACE).remote(  # type: ignore[attr-defined]
        settings, launcher, config.rollouts
    )


def end_pool(pool: Any, run: str) -> None:
    """End a run's samplers and its pool, and wait until the name is free for the next run."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(pool.close.remote(), timeout=END_S)
    ray.kill(pool)
    deadline = time.monotonic() + END_S
    while run in _alive() and time.monotonic() < deadline:
        time.sleep(0.05)


def scale(run: str, num_samplers: int) -> int:
    """Have a run that is alive use `num_samplers` from now on; how many it was to use before. Raises UserError."""
    if num_samplers < 1:
        raise UserError(f"cannot scale to {num_samplers} samplers: a run needs 1 or more; to end it, end its job")
    pool = _find(run)
    return int(wait_for([pool.scale.remote(num_samplers)], f"run {run!r} to answer", ANSWER_S)[0])


def status(run: str) -> tuple[LoopStatus, Status]:
    """A snapshot of a run that is alive. Raises UserError."""
    pool = _find(run)
    loop, rollouts = wait_for([pool.status.remote()], f"run {run!r} to answer", ANSWER_S)[0]
    return loop, rollouts


def _find(run: str) -> Any:
    """The actor of a run that is alive. Raises UserError."""
    connect()
    with contextlib.suppress(ValueError):
        return ray.get_actor(actor_name(run), namespace=NAMESPACE)
    folder = runs_root() / run
    if (folder / "config.yaml").exists():
        raise UserError(f"run {run!r} is not alive on this cluster: it has ended; its figures are in {folder}")
    raise UserError(f"there is no run {run!r} in {runs_root()}; alive on this cluster: {', '.join(_alive()) or 'none'}")


def _alive() -> list[str]:
    prefix = actor_name("")
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
