"""The `RolloutPool` actor: runs the pool on the cluster, and answers the loop and the command line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray

from rayrlhf.cluster.actor_group import wait_for
from rayrlhf.cluster.connection import connect
from rayrlhf.cluster.placement import on_this_node
from rayrlhf.config import UserError
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.pool.leases import SampleBatch
from rayrlhf.pool.pool import Pool, PoolSettings
from rayrlhf.pool.runner import Runner
from rayrlhf.pool.status import SamplerStatus, Status
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.sampler_actor import Launcher, RayLink
from rayrlhf.rewards import rewards_rank
from rayrlhf.run_directory import runs_root
from rayrlhf.types import Rollouts

NAMESPACE = "rayrlhf"
"""Ray namespace in which a run's pool is found by the run's name."""
ANSWER_S = 30.0
END_S = 5.0


@dataclass(frozen=True)
class LoopStatus:
    """The progress of the loop."""

    step: int
    """Steps done."""
    num_steps: int
    version: int
    """Of the newest published weights."""
    seconds: Mapping[str, float]
    """Of the learners, by activity."""


def actor_name(run: str) -> str:
    """Of a run's pool."""
    return f"rollouts of {run}"


@ray.remote(num_cpus=0)
class RolloutPool:
    """One per run; it owns the sampler processes.

    A response counts once this actor holds its tokens, so no later loss of a node can undo it.
    """

    def __init__(self, settings: PoolSettings, launcher: Launcher, config: RolloutsConfig) -> None:
        self._settings, self._launcher, self._config = settings, launcher, config
        self._runner: Runner | None = None
        self._began = 0.0
        self._loop = LoopStatus(step=0, num_steps=0, version=-1, seconds={})
        self._lines: list[str] = []
        self._rewarders: list[Any] = []
        self._requested: dict[int, list[tuple[int, int]]] = {}

    async def ready(self) -> None:
        """Start the samplers; returns once those that the cluster has placed are ready."""
        self._began = time.monotonic()
        self._pool = Pool(self._settings, self._began)
        self._runner = Runner(
            self._pool, self._launcher, self._config.autoscale, self._lines.append, on_group=self._score_early
        )
        await self._runner.ready()

    async def score_early(self, rewarders: list[Any]) -> None:
        """From now on send each accepted group to the rewarder that will score it.

        rewarders: actor handles by rank, see `rewards_rank`. Nothing is sent while there are none.
        """
        self._rewarders = rewarders

    async def submit(self, batch: SampleBatch) -> None:
        """Have a batch generated."""
        self._running.submit(batch)
        self._requested[batch.id] = sorted((sample.prompt.id, sample.sample_id) for sample in batch.samples)

    async def take(self, batch_id: int) -> tuple[Status, Rollouts]:
        """A batch's rollouts, once it is complete, sorted by (prompt id, sample id)."""
        rollouts = Rollouts.concat(await self._running.take(batch_id))
        delivered = list(zip(rollouts.prompt_ids.tolist(), rollouts.sample_ids.tolist(), strict=True))
        assert delivered == self._requested.pop(batch_id), "the pool delivered other samples than were requested"
        return self._status(), rollouts

    async def settle(self, batch_id: int, rejected: Mapping[tuple[int, int], str]) -> None:
        """Record what became of the samples of a taken batch. rejected: reason by (prompt id, sample id)."""
        self._pool.settle(batch_id, rejected)

    async def published(self, version: int) -> None:
        """Newer weights were published."""
        self._loop = replace(self._loop, version=version)

    async def at(self, step: int, num_steps: int, seconds: Mapping[str, float]) -> None:
        """The loop's progress."""
        self._loop = replace(self._loop, step=step, num_steps=num_steps, seconds=seconds)

    async def scale(self, num_samplers: int) -> int:
        """Change the number of samplers. Returns the previous one."""
        before = self._pool.fleet.size
        self._running.scale(num_samplers)
        return before

    async def status(self) -> tuple[LoopStatus, Status]:
        """A snapshot."""
        return self._loop, self._status()

    async def lines(self) -> list[str]:
        """Log lines since the last call."""
        lines, self._lines[:] = list(self._lines), []
        return lines

    async def close(self) -> None:
        """End all samplers."""
        if self._runner is not None:
            self._runner.close()

    def _score_early(self, batch_id: int, rollouts: Rollouts) -> None:
        begin_scoring(self._rewarders, rollouts)

    @property
    def _running(self) -> Runner:
        if self._runner is None:
            raise UserError("the run is still starting: try again in a moment")
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


def begin_scoring(rewarders: list[Any], rollouts: Rollouts) -> None:
    """Send a group to the rewarder that will score it, if there is one.

    Fire and forget: the loop still asks for every score, so a call that fails costs nothing but time.
    """
    if rewarders:
        rank = rewards_rank(int(rollouts.prompt_ids[0]), len(rewarders))
        rewarders[rank].call.remote("begin", rollouts=rollouts)


def check_not_alive(run: str) -> None:
    """Raises UserError if a run of this name is alive on this cluster: both would write into one folder."""
    if run in _alive():
        raise UserError(f"a run named {run!r} is alive on this cluster: choose another run.name, or end its job")


def start_pool(config: PPOConfig, launcher: Launcher) -> Any:
    """Start a run's pool; it is found by the run's name."""
    sampler, name = config.sampler, config.run.name
    settings = config.rollouts.pool(sampler.num_workers, sampler.engine.num_slots, config.timeouts.start_s)
    return RolloutPool.options(  # type: ignore[attr-defined]
        name=actor_name(name), namespace=NAMESPACE, **on_this_node()
    ).remote(settings, launcher, config.rollouts)


def end_pool(pool: Any, run: str) -> None:
    """End a run's samplers and its pool, and wait until its name is free for the next run."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(pool.close.remote(), timeout=END_S)
    ray.kill(pool)
    deadline = time.monotonic() + END_S
    while run in _alive() and time.monotonic() < deadline:
        time.sleep(0.05)


def scale(run: str, num_samplers: int) -> int:
    """Change the number of samplers of a run that is alive; returns the previous one. Raises UserError."""
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
        raise UserError(f"run {run!r} is not alive on this cluster: it has ended; its metrics are in {folder}")
    raise UserError(f"there is no run {run!r} in {runs_root()}; alive on this cluster: {', '.join(_alive()) or 'none'}")


def _alive() -> list[str]:
    prefix = actor_name("")
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
