"""The five roles of a PPO run as Ray actors, and what the loop says to them.

Methods take and return object references: tensors go from the actor that makes them through the object store to the
actors that use them, and the loop sees reports and metrics only.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
import torch

from rayrlhf.actors.group import Group, WorkerError, wait_for
from rayrlhf.actors.placement import Reservation, Resources
from rayrlhf.actors.ppo_config import PPOConfig
from rayrlhf.actors.weight_store import StoreClient, WeightStore
from rayrlhf.data.batching import epoch_batches
from rayrlhf.engines import EngineConfig, Sampling
from rayrlhf.rollout.requests import share_out
from rayrlhf.types import SampleRequest
from rayrlhf.workers.credit import CreditAssigner
from rayrlhf.workers.learner import CriticLearner, PolicyLearner
from rayrlhf.workers.parallel import Ranks
from rayrlhf.workers.sampler import Sampler, SamplerReport
from rayrlhf.workers.scorer import ReferenceScorer, RewardModelScorer
from rayrlhf.workers.trainee import StepReport

CREDIT = Resources(num_workers=1, num_cpus=0, num_threads=1)
"""The credit assigner works while everyone else waits: it reserves nothing."""


@dataclass(frozen=True)
class Collected:
    """A step's rollouts: references to what each sampler drew, and its report."""

    parts: list[Any]
    reports: list[SamplerReport]
    num_rows: int


class Roles:
    """All actors of a run; a context manager that ends them."""

    def __init__(self, config: PPOConfig, reservation: Reservation, eos_token_id: int, max_model_len: int) -> None:
        self._config = config
        self._reservation = reservation
        reservation.plan.seats["credit"] = [reservation.seat_outside()]
        self._store: Any = WeightStore.remote()  # type: ignore[attr-defined]
        start_s = config.timeouts.start_s
        self._groups = {
            name: Group(name, resources, reservation, start_s)
            for name, resources in {**config.roles, "credit": CREDIT}.items()
        }
        self.sampler, self.reward, self.reference, self.policy, self.critic, self.credit = self._groups.values()
        steps = config.num_steps * config.optimizer_steps_per_step
        source = config.reward.source
        compare = config.sampling.has_comparable_logprobs
        self._building = {
            "sampler": self.sampler.build(
                functools.partial(
                    _build_sampler,
                    engine=config.sampler.engine,
                    model=config.model,
                    max_model_len=max_model_len,
                    sampling=config.sampling,
                    eos_token_id=eos_token_id,
                    store=self._store,
                    timeout_s=start_s,
                ),
                together=False,
            ),
            "policy": self.policy.build(
                functools.partial(PolicyLearner, config.model, config.policy, config.algorithm, steps), together=True
            ),
            "critic": self.critic.build(
                functools.partial(
                    CriticLearner, config.critic_model, config.critic, config.algorithm, steps, source.normalize
                ),
                together=True,
            ),
            "reference": self.reference.build(
                functools.partial(ReferenceScorer, config.reference_model, config.reference), together=False
            ),
            "reward": self.reward.build(
                functools.partial(RewardModelScorer, source.model, source.pooling, source.normalize, config.reward),
                together=False,
            ),
            "credit": self.credit.build(
                functools.partial(_build_credit, config.algorithm, config.model, compare), together=False
            ),
        }

    def wait_until_ready(self) -> dict[str, float]:
        """Wait for every role to have loaded its models; the seconds until each was ready."""
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
        """Policy weights → the store, as `version`; samplers pull it before they draw."""
        dtype = _dtype_of(self._config.sampler.engine)
        self._wait([self._store.publish.remote(version, self.policy.hosts, dtype)], "policy weights to be published")

    def collect(self, requests: Sequence[SampleRequest], version: int, sampling: Sampling | None = None) -> Collected:
        """y ~ π_version(·|x) for every request."""
        shares = [share for share in share_out(requests, len(self.sampler)) if share]
        answers = [
            self.sampler.call_one(rank, "generate", share, sampling or self._config.sampling, version, num_returns=2)
            for rank, share in enumerate(shares)
        ]
        reports = self._wait([report for report, _ in answers], "rollouts")
        drawn = sum(len(report.headers) for report in reports)
        assert drawn == len(requests), f"asked for {len(requests)} rollouts, got {drawn}"
        return Collected([part for _, part in answers], reports, drawn)

    def scores(self, rollouts: Collected) -> list[Any]:
        """r(x, y)."""
        return self.reward.call("score", *rollouts.parts)

    def ref_logprobs(self, rollouts: Collected) -> list[Any]:
        """log π_ref(y|x)."""
        return self.reference.call("logprobs", self._config.learning_temperature, *rollouts.parts)

    def old_logprobs(self, rollouts: Collected) -> list[Any]:
        """log π_old(y|x), by the learner."""
        return self.policy.call("logprobs", self._config.learning_temperature, *rollouts.parts)

    def values(self, rollouts: Collected) -> list[Any]:
        """V(s_t)."""
        return self.critic.call("values", *rollouts.parts)

    def assign_credit(
        self, rollouts: Collected, kl_coef: float, rollouts_file: str | None, *judged: list[Any]
    ) -> tuple[dict[str, float], Any]:
        """KL reward, GAE, whitening: the step's metrics, and a reference to the batch with A_t and R_t.

        judged: scores, reference log-probs, old log-probs, values.
        """
        groups = [rollouts.parts, *judged]
        metrics, batch = self.credit.call_one(
            0,
            "assign",
            kl_coef,
            rollouts_file,
            [len(group) for group in groups],
            *itertools.chain(*groups),
            num_returns=2,
        )
        (figures,) = self._wait([metrics], "scores and log-probabilities")
        return figures, batch

    def update(self, batch: Any, num_rows: int, step: int) -> dict[str, float]:
        """Several epochs of minibatches; policy and critic learn side by side. Metrics, averaged over updates."""
        algorithm, seed = self._config.algorithm, self._config.run.seed
        policy, critic = [], []
        for epoch in range(algorithm.num_epochs):
            for rows in epoch_batches(num_rows, algorithm.minibatch_size, (seed, step, epoch)):
                policy.append(self.policy.call("update", batch, rows, self._config.learning_temperature))
                critic.append(self.critic.call("update", batch, rows))
        merged = [
            StepReport.merge(self._wait(references, f"{role} update"))
            for role, updates in (("policy", policy), ("critic", critic))
            for references in updates
        ]
        return _average(merged)

    def evaluate(self, requests: Sequence[SampleRequest], version: int, rollouts_file: str) -> dict[str, float]:
        """Figures of responses to held-out prompts."""
        rollouts = self.collect(requests, version)
        groups = [
            rollouts.parts,
            self.scores(rollouts),
            self.ref_logprobs(rollouts),
            self.old_logprobs(rollouts),
        ]
        reference = self.credit.call_one(
            0, "evaluate", rollouts_file, [len(group) for group in groups], *itertools.chain(*groups)
        )
        (figures,) = self._wait([reference], "the held-out evaluation")
        return dict(figures)

    def save(self, folder: str) -> None:
        """Policy and critic as Hugging Face folders below `folder`."""
        references = self.policy.call("save", f"{folder}/policy") + self.critic.call("save", f"{folder}/critic")
        self._wait(references, "the checkpoint to be written")

    def _wait(self, references: Sequence[Any], awaited: str) -> list[Any]:
        return wait_for(references, awaited, self._config.timeouts.step_s, "timeouts.step_s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._groups.values():
            group.kill()
        ray.kill(self._store)
        self._reservation.release()


def _build_sampler(
    ranks: Ranks,
    engine: EngineConfig,
    model: str,
    max_model_len: int,
    sampling: Sampling,
    eos_token_id: int,
    store: Any,
    timeout_s: float,
) -> Sampler:
    return Sampler(engine.start(model, max_model_len, sampling, eos_token_id), StoreClient(store, timeout_s))


def _build_credit(algorithm: Any, tokenizer_folder: str, compare_logprobs: bool, ranks: Ranks) -> CreditAssigner:
    return CreditAssigner(algorithm, tokenizer_folder, compare_logprobs)


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
