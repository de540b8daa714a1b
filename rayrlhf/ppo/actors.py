"""The life of a run's actors: placed and started together, waited for, ended together."""

from __future__ import annotations

import functools
import time
from types import TracebackType
from typing import Any, Self

import ray

from rayrlhf.cluster.actor_group import ActorGroup, RoleFactory, WorkerError, wait_for
from rayrlhf.cluster.placement import OUTSIDE, Reservation, on_this_node
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.inputs import PPOInputs
from rayrlhf.ppo.pool_actor import end_pool, start_pool
from rayrlhf.ppo.roles import RoleInputs, RoleSpec, roles_of
from rayrlhf.ppo.roles.sampler import build_sampler
from rayrlhf.ppo.sampler_actor import Launcher
from rayrlhf.ppo.weight_store import WeightStore


class RunActors:
    """All actors of a run; a context manager that ends them. Roles that the algorithm does not need are not started."""

    def __init__(self, config: PPOConfig, reservation: Reservation, inputs: PPOInputs) -> None:
        self.config, self._reservation = config, reservation
        known = (inputs.gold_answers, inputs.columns)
        given = RoleInputs(
            inputs.eos_token_id,
            inputs.max_model_len,
            known=None if known == (None, None) else ray.put(known),
            ptx=None if inputs.ptx is None else ray.put(inputs.ptx),
        )
        self.store: Any = WeightStore.options(**on_this_node()).remote()  # type: ignore[attr-defined]
        sampler = functools.partial(build_sampler, config, given, self.store)
        self.pool: Any = start_pool(config, Launcher(reservation, config.sampler, sampler))
        self.groups = {
            role.name: self._start(role, factory)
            for role in roles_of(config)
            if (factory := _factory(role, config, given)) is not None
        }
        """By role; samplers are the pool's."""
        self._building = {name: group.build() for name, group in self.groups.items()}
        self._building["sampler"] = [self.pool.ready.remote()]

    def wait_until_ready(self) -> dict[str, float]:
        """Wait for every role to have loaded its models, and for one sampler; the seconds until each was ready."""
        started, limit = time.monotonic(), self.config.timeouts.start_s
        ready: dict[str, float] = {}
        waiting = {ref: role for role, refs in self._building.items() for ref in refs}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=limit - (time.monotonic() - started))
            if not done:
                late = ", ".join(sorted(set(waiting.values())))
                raise WorkerError(
                    f"waited {limit:g} s for {late} to start: raise timeouts.start_s, or see the actors' logs"
                )
            role = waiting.pop(done[0])
            wait_for(done, f"{role} to start", limit)
            ready[role] = time.monotonic() - started
        if self.config.reward.source.scores_texts:
            self.pool.score_early.remote(self.groups["reward"].hosts)
        return ready

    def _start(self, role: RoleSpec, factory: RoleFactory) -> ActorGroup:
        if not role.reserves:
            self._reservation.plan.seats[role.name] = [OUTSIDE]
        resources = role.resources(self.config)
        return ActorGroup(role.name, factory, resources, self._reservation, self.config.timeouts.start_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_pool(self.pool, self.config.run.name)
        for group in self.groups.values():
            group.kill()
        ray.kill(self.store)
        self._reservation.release()


def _factory(role: RoleSpec, config: PPOConfig, inputs: RoleInputs) -> RoleFactory | None:
    if role.build is None:
        return None
    return RoleFactory(functools.partial(role.build, config, inputs), role.together, role.restartable)
