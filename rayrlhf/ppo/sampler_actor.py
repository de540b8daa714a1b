"""Sampler processes on the cluster: how one is placed, started, called and ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrlhf.cluster.actor_group import environment
from rayrlhf.cluster.placement import Reservation, Seat
from rayrlhf.cluster.processes import ProcessId
from rayrlhf.pool.leases import Lease, Report
from rayrlhf.pool.runner import LinkError
from rayrlhf.ppo.roles.sampler import SamplerRole
from rayrlhf.workers.sampler_loop import SamplerLoop


@dataclass(frozen=True)
class Whereabouts:
    """Where a sampler's process runs."""

    node: str
    process: ProcessId


@ray.remote(max_concurrency=4)
class SamplerHost:
    """An actor that holds one sampler. Its calls run in other threads than the one that steps the engine."""

    def __init__(self) -> None:
        self._loop: SamplerLoop | None = None

    def whereabouts(self) -> Whereabouts:
        """Returns once the process runs."""
        return Whereabouts(ray.get_runtime_context().get_node_id(), ProcessId.of(psutil.Process(os.getpid())))

    def start(self, factory: Callable[[], SamplerLoop], num_threads: int) -> None:
        """Load the engine and start its threads."""
        import torch

        torch.set_num_threads(num_threads)
        self._loop = factory()

    def assign(self, leases: tuple[Lease, ...]) -> None:
        """See `SamplerLoop.assign`."""
        assert self._loop is not None
        self._loop.assign(leases)

    def report(self, timeout_s: float) -> Report:
        """See `SamplerLoop.report`."""
        assert self._loop is not None
        return self._loop.report(timeout_s)


@ray.remote(num_cpus=0, max_retries=0)
def _end(process: ProcessId) -> None:
    """Kill a process of this node that may not be able to end itself, since it hangs or was stopped."""
    if found := process.find():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()


class RayLink:
    """The pool's `Link` to one `SamplerHost`."""

    def __init__(self, host: Any, start: tuple[Callable[[], SamplerLoop], int], release: Callable[[], None]) -> None:
        self._host, self._start, self._release = host, start, release
        self.whereabouts: Whereabouts | None = None

    async def placed(self) -> None:
        """Wait until its actor runs."""
        self.whereabouts = await _answer(self._host.whereabouts.remote())

    async def ready(self) -> None:
        """Wait until its engine is loaded."""
        await _answer(self._host.start.remote(*self._start))

    async def assign(self, leases: tuple[Lease, ...]) -> None:
        """Send it leases."""
        await _answer(self._host.assign.remote(leases))

    async def report(self, timeout_s: float) -> Report:
        """Long-poll for its next report."""
        report: Report = await _answer(self._host.report.remote(timeout_s))
        return report

    def kill(self) -> None:
        """End its process, on whatever node it runs, and free its seat."""
        ray.kill(self._host)
        if self.whereabouts is not None:
            there = NodeAffinitySchedulingStrategy(node_id=self.whereabouts.node, soft=False)
            _end.options(scheduling_strategy=there).remote(self.whereabouts.process)
        self._release()


async def _answer(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise LinkError(f"its engine failed: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise LinkError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class Launcher:
    """Starts sampler processes: on the run's reserved seats while there are any, else wherever the cluster has room."""

    def __init__(self, reservation: Reservation, role: SamplerRole, factory: Callable[[], SamplerLoop]) -> None:
        self._reservation, self._role, self._factory = reservation, role, factory
        self._seats = list(reservation.plan.seats["sampler"])

    def __call__(self, member: int) -> RayLink:
        seat = self._seats.pop() if self._seats else None
        host = SamplerHost.options(  # type: ignore[attr-defined]
            name=f"sampler-{member}-{os.getpid()}",
            runtime_env={"env_vars": environment(member, self._role.threads) | self._role.engine.environment()},
            **self._reservation.options(seat or self._anywhere()),
        ).remote()

        def release() -> None:
            if seat is not None:
                self._seats.append(seat)

        return RayLink(host, (self._factory, self._role.threads), release)

    def _anywhere(self) -> Seat:
        return Seat(-1, self._role.num_cpus, self._role.num_gpus)
