"""The roles of a PPO run as Ray actors, and what the loop says to them.

Methods take and return object references: tensors go from the actor that makes them through the object store to the
actors that use them, and the loop sees reports and metrics only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
import torch

from rayrlhf.cluster.actor_group import ActorGroup, WorkerError, wait_for
from rayrlhf.cluster.placement import Reservation, Resources
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.engines import EngineConfig, Sampling
from rayrlhf.pool.leases import Purpose, SampleBatch
from rayrlhf.pool.status import Status
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.factories import role_factories, sampler_factory
from rayrlhf.ppo.pool_actor import end_pool, start_pool
from rayrlhf.ppo.sampler_actor import Launcher
from rayrlhf.ppo.weight_store import WeightStore
from rayrlhf.training.batching import epoch_batches
from rayrlhf.training.model_trainer import StepReport
from rayrlhf.types import Sample

LOOK_AFTER_S = 2.0
"""How often the loop looks after pool and store while it waits."""

CREDIT = Resources(num_workers=1, num_cpus=0, num_threads=1)
"""The credit assigner works while everyone else waits: it reserves nothing."""


@dataclass(frozen=True)
class Collected:
    """Rollouts that were taken from the pool: a reference to them, and how the pool stood."""

    parts: list[Any]
    num_rows: int
    status: Status | None = None
    orders: tuple[SampleBatch, ...] = ()
    scores: list[Any] | None = None
    """The ranks' shares of the scores, if they were asked for already."""
    greedy: Collected | None = None
    """The prompts' greedy responses, if the algorithm compares with them."""
    num_left_out: int = 0
    """Rollouts that dynamic sampling drew and left out."""


class Roles:
    """All actors of a run; a context manager that ends them. Roles that the algorithm does not need are not started."""

    def __init__(
        self,
        config: PPOConfig,
        reservation: Reservation,
        eos_token_id: int,
        max_model_len: int,
        gold_answers: list[str] | None,
        ptx: Sequences | None,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._reservation, self._say = config, reservation, say
        self._version = -1
        self._next_order = 0
        reservation.plan.seats["credit"] = [reservation.seat_outside()]
        self._store: Any = WeightStore.remote()  # type: ignore[attr-defined]
        self._pool: Any = start_pool(
            config,
            Launcher(reservation, config.sampler, sampler_factory(config, self._store, eos_token_id, max_model_len)),
        )
        # Kept: a scorer that Ray starts again reads them once more.
        self._inputs = (None if gold_answers is None else ray.put(gold_answers), ray.put(ptx))
        factories = role_factories(config, *self._inputs)
        resources = {**config.roles, "credit": CREDIT}
        self._groups = {
            name: ActorGroup(name, factory, resources[name], reservation, config.timeouts.start_s)
            for name, factory in factories.items()
        }
        self._building = {name: group.build() for name, group in self._groups.items()}
        self._building["sampler"] = [self._pool.ready.remote()]

    def wait_until_ready(self) -> dict[str, float]:
        """Wait for every role to have loaded its models, and for one sampler; the seconds until each was ready."""
        started, limit = time.monotonic(), self._config.timeouts.start_s
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
        return ready

    def publish(self, version: int) -> None:
        """Policy weights → the store, as `version`; samplers pull it by themselves."""
        dtype = _dtype_of(self._config.sampler.engine)
        self._wait(
            [self._store.publish.remote(version, self._groups["policy"].hosts, dtype)], "policy weights to be published"
        )
        self._version = version
        self._pool.published.remote(version)

    def order(
        self,
        requests: Sequence[Sample],
        step: int,
        min_version: int,
        sampling: Sampling | None = None,
        purpose: Purpose = "train",
    ) -> SampleBatch:
        """Have the samplers draw y ~ π(·|x) for every request, with weights of at least `min_version`."""
        sampling = sampling or self._config.sampling
        order = SampleBatch(self._next_order, step, tuple(requests), sampling, max(0, min_version), purpose)
        self._next_order += 1
        self._wait([self._pool.submit.remote(order)], "the rollout pool")
        return order

    def take(self, order: SampleBatch) -> Collected:
        """An order's rollouts, once all are there."""
        status, rollouts = self._pool.take.options(num_returns=2).remote(order.id)
        began, limit = time.monotonic(), self._config.timeouts.step_s
        while not ray.wait([status], timeout=LOOK_AFTER_S)[0]:
            self._pass_on()
            self._heal_store()
            if time.monotonic() - began > limit:
                raise WorkerError(
                    f"waited {limit:g} s for rollouts: raise timeouts.step_s, or look at `rayrlhf status`"
                )
        (now,) = self._wait([status], "rollouts")
        return Collected([rollouts], len(order.samples), now, (order,))

    def settle(self, rollouts: Collected, ends: Mapping[tuple[int, int], str | None]) -> None:
        """Tell the ledger what became of a step's samples: those that `ends` does not name were left out."""
        for order in rollouts.orders:
            keys = [(sample.prompt.id, sample.sample_id) for sample in order.samples]
            rejected = {key: why for key in keys if (why := ends.get(key, "its group's scores do not differ"))}
            self._pool.settle.remote(order.id, rejected)
        if rollouts.greedy is not None:
            self._use(rollouts.greedy)

    def tell(self, step: int, seconds: Mapping[str, float]) -> None:
        """Let `rayrlhf status` know where the loop is. seconds: of the learners, by activity."""
        self._pool.at.remote(step, self._config.num_steps, dict(seconds))
        self._pass_on()

    def _pass_on(self) -> None:
        """What the pool has to say, to people."""
        for line in self._wait([self._pool.lines.remote()], "the rollout pool")[0]:
            self._say(line)

    def _heal_store(self) -> None:
        """Publish again if the store lost its weights. While nothing is trained, the policy still is that version."""
        (stored,) = self._wait([self._store.version.remote()], "the weight store")
        if stored < self._version:
            self._say(f"the weight store lost its weights: version {self._version} is published again")
            self.publish(self._version)

    def _use(self, rollouts: Collected) -> None:
        for order in rollouts.orders:
            self._pool.settle.remote(order.id, {})

    def scores(self, rollouts: Collected) -> list[Any]:
        """r(x, y)."""
        return rollouts.scores or self._groups["reward"].call("score", *rollouts.parts)

    def judge(self, rollouts: Collected, with_values: bool = True) -> dict[str, list[Any]]:
        """What the roles say of the rollouts, by name: r(x, y), and as far as the algorithm needs them log π_old(y|x),
        log π_ref(y|x) and V(s_t). All are asked at the same time."""
        temperature, parts = self._config.learning_temperature, rollouts.parts
        judged = {
            "rollouts": parts,
            "scores": self.scores(rollouts),
        }
        if self._config.algorithm.old_logprobs == "learner":  # else they came with the rollouts
            judged["old_logprobs"] = self._groups["policy"].call("logprobs", temperature, *parts)
        if "reference" in self._groups:
            judged["ref_logprobs"] = self._groups["reference"].call("logprobs", temperature, *parts)
        if "critic" in self._groups and with_values:
            judged["values"] = self._groups["critic"].call("values", *parts)
        if rollouts.greedy is not None:
            judged["greedy_rollouts"] = rollouts.greedy.parts
            judged["greedy_scores"] = self.scores(rollouts.greedy)
        return judged

    def assign_credit(
        self, kl_coef: float, rollouts_file: str | None, judged: Mapping[str, list[Any]]
    ) -> tuple[dict[str, float], dict[tuple[int, int], str | None], Any]:
        """KL penalty, advantages, returns: the step's metrics, which samples are trained on or why they are not, and a
        reference to the batch."""
        metrics, ends, batch = self._ask_credit(
            "assign", self._version, kl_coef, rollouts_file, judged=judged, num_returns=3
        )
        figures, known = self._wait([metrics, ends], "scores and log-probabilities")
        return figures, known, batch

    def select(self, tolerance: float, max_groups: int, kept: Collected, drawn: Collected) -> tuple[int, Any, Any]:
        """(groups of `drawn` that teach, rollouts and scores with `kept`): see `CreditAssigner.select`."""
        judged = {
            "kept_rollouts": kept.parts,
            "kept_scores": kept.scores or [],
            "rollouts": drawn.parts,
            "scores": self.scores(drawn),
        }
        count, rollouts, scores = self._ask_credit("select", tolerance, max_groups, judged=judged, num_returns=3)
        (found,) = self._wait([count], "the scores of the groups")
        return found, rollouts, scores

    def update(self, batch: Any, num_rows: int, step: int) -> dict[str, float]:
        """Several epochs of minibatches; policy and critic learn side by side. Metrics, averaged over updates."""
        algorithm, seed = self._config.algorithm, self._config.run.seed
        updates: list[tuple[str, list[Any]]] = []
        for epoch in range(algorithm.num_epochs):
            for rows in epoch_batches(num_rows, algorithm.minibatch_size, (seed, step, epoch)):
                if step >= algorithm.first_policy_step:
                    temperature = self._config.learning_temperature
                    updates.append(("policy", self._groups["policy"].call("update", batch, rows, temperature)))
                if "critic" in self._groups:
                    updates.append(("critic", self._groups["critic"].call("update", batch, rows)))
        merged = [StepReport.merge(self._wait(reports, f"{role} update")) for role, reports in updates]
        first = next((metrics for metrics in merged if "policy/ratio_mean" in metrics), None)
        return _average(merged) | ({"policy/first_ratio_mean": first["policy/ratio_mean"]} if first else {})

    def evaluate(self, requests: Sequence[Sample], version: int, rollouts_file: str) -> dict[str, float]:
        """Figures of responses to held-out prompts."""
        rollouts = self.take(self.order(requests, version, version, purpose="evaluate"))
        judged = self.judge(rollouts, with_values=False)
        (figures,) = self._wait([self._ask_credit("evaluate", rollouts_file, judged=judged)], "the held-out evaluation")
        self._use(rollouts)
        return dict(figures)

    def save(self, folder: str) -> None:
        """The trained models as Hugging Face folders below `folder`."""
        trained = [name for name in ("policy", "critic") if name in self._groups]
        references = [ref for name in trained for ref in self._groups[name].call("save", f"{folder}/{name}")]
        self._wait(references, "the checkpoint to be written")

    def _ask_credit(self, method: str, *args: Any, judged: Mapping[str, list[Any]], num_returns: int = 1) -> Any:
        sizes = {name: len(references) for name, references in judged.items()}
        references = itertools.chain.from_iterable(judged.values())
        return self._groups["credit"].call_one(0, method, *args, sizes, *references, num_returns=num_returns)

    def _wait(self, references: Sequence[Any], awaited: str) -> list[Any]:
        return wait_for(references, awaited, self._config.timeouts.step_s, "timeouts.step_s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_pool(self._pool, self._config.run.name)
        for group in self._groups.values():
            group.kill()
        ray.kill(self._store)
        self._reservation.release()


def _dtype_of(engine: EngineConfig) -> torch.dtype | None:
    """What the weights are sent in; None leaves the learner's float32, as an engine on CPU computes in by default."""
    return None if engine.dtype in ("auto", "float32") else getattr(torch, engine.dtype)


def _average(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the updates that have it; steps that were skipped are added up."""
    names = {name for update in metrics for name in update}
    return {
        name: sum(values) if name.endswith("skipped_steps") else sum(values) / len(values)
        for name in sorted(names)
        if (values := [update[name] for update in metrics if name in update])
    }
