"""Placement of a run's actors: one placement group, requested before any actor starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from pydantic import Field, NonNegativeFloat, PositiveInt
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rayrlhf.config import Config, UserError

ROUNDING = 1e-6


class PlacementError(UserError):
    """The cluster cannot hold the run."""


class Resources(Config):
    """How many actors a role has, and what each reserves."""

    num_workers: PositiveInt = 1
    num_cpus: NonNegativeFloat = 1.0
    """CPUs reserved by each; fractions share a core."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs reserved by each; fractions share a GPU."""
    num_threads: PositiveInt | None = None
    """Compute threads of each; null means num_cpus, rounded up."""

    @property
    def threads(self) -> int:
        """Threads of one worker."""
        return self.num_threads or max(1, -int(-self.num_cpus // 1))


class PlacementConfig(Config):
    """How the run uses the cluster."""

    colocate: tuple[tuple[str, ...], ...] = ()
    """Roles that take turns on the same devices, for example [[policy, reference], [critic, reward]]."""
    timeout_s: float = Field(default=120.0, gt=0)
    """How long to wait for resources held by other runs."""
    strategy: str = Field(default="PACK", pattern="^(PACK|SPREAD|STRICT_PACK|STRICT_SPREAD)$")


@dataclass(frozen=True)
class Seat:
    """One worker's bundle, and its share of it."""

    bundle: int
    num_cpus: float
    num_gpus: float


OUTSIDE = Seat(bundle=-2, num_cpus=0, num_gpus=0)
"""Of an actor that reserves nothing."""


def on_this_node() -> dict[str, Any]:
    """Actor options that put what reserves nothing beside the driver, and nowhere else: Ray would choose any node, and
    with a sampler's node the run would lose more than a sampler."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=False)}


@dataclass
class Plan:
    """Bundles to request, and each role's seats in them."""

    bundles: list[dict[str, float]] = field(default_factory=list)
    seats: dict[str, list[Seat]] = field(default_factory=dict)

    def total(self, resource: str) -> float:
        """CPUs or GPUs over all bundles."""
        return sum(bundle.get(resource, 0.0) for bundle in self.bundles)


def plan_placement(roles: Mapping[str, Resources], colocate: Sequence[Sequence[str]]) -> Plan:
    """Bundles for the workers of all roles.

    Colocated roles share bundles worker by worker. A bundle is as large as the largest of them needs, and each reserves
    an equal share, since they take turns.
    """
    for name in (name for names in colocate for name in names):
        if name not in roles:
            raise PlacementError(f"placement.colocate: {name!r} is not a role; roles are {', '.join(roles)}")
    together = {name for names in colocate for name in names}
    if len(together) != sum(len(names) for names in colocate):
        raise PlacementError("placement.colocate: a role is in more than one group; name each role once")
    plan = Plan(seats={name: [] for name in roles})
    for names in [*colocate, *([name] for name in roles if name not in together)]:
        for rank in range(max(roles[name].num_workers for name in names)):
            present = [name for name in names if rank < roles[name].num_workers]
            cpus = max(roles[name].num_cpus for name in present)
            gpus = max(roles[name].num_gpus for name in present)
            plan.bundles.append({k: v for k, v in (("CPU", cpus), ("GPU", gpus)) if v > 0})
            for name in present:
                plan.seats[name].append(Seat(len(plan.bundles) - 1, cpus / len(present), gpus / len(present)))
    return plan


def check_capacity(plan: Plan, roles: Mapping[str, Resources], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raises PlacementError, with the settings to lower, if the cluster could never hold the plan.

    nodes: the total resources of each node, as Ray names them ("CPU", "GPU").
    """
    for resource, setting in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        needed, present = plan.total(resource), sum(node.get(resource, 0.0) for node in nodes)
        if needed > present + ROUNDING:
            takers = {n: r.num_workers * getattr(r, setting) for n, r in roles.items() if getattr(r, setting)}
            listed = ", ".join(
                f"{name}.num_workers (now {roles[name].num_workers} × {getattr(roles[name], setting):g} {resource})"
                if roles[name].num_workers > 1
                else f"{name}.{setting} (now {getattr(roles[name], setting):g})"
                for name in sorted(takers, key=lambda name: -takers[name])
            )
            raise PlacementError(
                f"the run needs {needed:g} {resource}, the cluster has {present:g}: lower {listed}, or their "
                f"{setting}, or let roles share devices with placement.colocate, or add nodes to the cluster"
            )
    for bundle in plan.bundles:
        if not any(all(node.get(k, 0.0) + ROUNDING >= v for k, v in bundle.items()) for node in nodes):
            raise PlacementError(
                f"a worker needs {describe(bundle)} on one node, and no node of the cluster has as much: "
                "lower the role's num_cpus or num_gpus"
            )


def describe(bundle: Mapping[str, float]) -> str:
    """`1 CPU + 0.5 GPU`."""
    return " + ".join(f"{amount:g} {resource}" for resource, amount in bundle.items()) or "nothing"


def cluster_nodes() -> list[dict[str, float]]:
    """Total resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Reservation:
    """A placement group for a plan, held until `release`."""

    def __init__(self, plan: Plan, config: PlacementConfig) -> None:
        self.plan = plan
        self._filled = [index for index, bundle in enumerate(plan.bundles) if bundle]
        self._group: PlacementGroup | None = None
        if not self._filled:
            return
        self._group = placement_group([plan.bundles[index] for index in self._filled], strategy=config.strategy)
        if not self._group.wait(config.timeout_s):
            free = ray.available_resources()
            self.release()
            raise PlacementError(
                f"waited {config.timeout_s:g} s for {plan.total('CPU'):g} CPU and {plan.total('GPU'):g} GPU; the "
                f"cluster has {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU free, the rest is held by "
                "other runs: end one, lower num_workers, or raise placement.timeout_s"
            )

    def options(self, seat: Seat) -> dict[str, Any]:
        """Actor options that put a worker on its seat."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if seat == OUTSIDE:
            return on_this_node()
        options: dict[str, Any] = {"num_cpus": seat.num_cpus, "num_gpus": seat.num_gpus}
        if self._group is not None and seat.bundle in self._filled:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=self._filled.index(seat.bundle)
            )
        return options

    def release(self) -> None:
        """Give the resources back."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None
