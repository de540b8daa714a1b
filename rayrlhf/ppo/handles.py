"""Handles of the roles, for the loop. Calls return at once with object references, or None for a role not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rayrlhf.cluster.actor_group import ActorGroup, wait_for
from rayrlhf.pool.leases import SampleBatch
from rayrlhf.pool.status import Status
from rayrlhf.ppo.actors import RunActors
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import Output
from rayrlhf.training.batching import epoch_batches
from rayrlhf.training.model_trainer import StepReport
from rayrlhf.workers.credit import StepOutcome

Refs = list[Any]
"""Object references to the shares of a role's ranks."""


@dataclass(frozen=True)
class Collected:
    """A step's rollouts as the loop holds them: one reference to all, and how the pool stood."""

    rollouts: Any
    """Reference to `Rollouts`."""
    num_rows: int
    status: Status
    batches: tuple[SampleBatch, ...]
    scores: Refs | None = None
    """If they were requested already."""
    greedy: Collected | None = None
    """The prompts' greedy responses, if the algorithm compares with them."""
    num_left_out: int = 0
    """Rollouts that dynamic sampling generated and left out."""


class Waiting:
    """Waits for answers, each for as long as a phase of a step may take."""

    _config: PPOConfig

    def _wait(self, ref: Any, awaited: str) -> Any:
        return self._wait_all([ref], awaited)[0]

    def _wait_all(self, refs: Refs, awaited: str) -> list[Any]:
        return wait_for(refs, awaited, self._config.timeouts.step_s, "timeouts.step_s")


class Handle:
    """One role's workers."""

    def __init__(self, group: ActorGroup | None, output: Output | None) -> None:
        self._group, self._output = group, output

    def ask(self, collected: Collected) -> Refs | None:
        """The role's output for the rollouts."""
        if self._group is None or self._output is None:
            return None
        return self._group.call(self._output.method, rollouts=collected.rollouts, **self._output.arguments)


class Reward(Handle):
    """r(x, y)."""

    def score(self, collected: Collected) -> Refs:
        """Scores, once each."""
        scores = collected.scores or self.ask(collected)
        assert scores is not None, "every run has a reward"
        return scores

    def baselines(self, collected: Collected) -> Refs | None:
        """r(x, y) of the greedy responses, where the algorithm compares with them."""
        return None if collected.greedy is None else self.score(collected.greedy)


class Policy(Handle):
    """π_θ as a scorer. None where the samplers' own log-probabilities are the old ones."""

    logprobs = Handle.ask


class Reference(Handle):
    """π_ref."""

    logprobs = Handle.ask


class Critic(Handle):
    """V_φ."""

    values = Handle.ask


class Weights(Waiting):
    """The policy's weights on their way to the samplers."""

    def __init__(self, actors: RunActors) -> None:
        self._actors, self._config = actors, actors.config
        self.version = -1
        """Newest one published."""

    def publish(self, version: int) -> None:
        """Policy weights → the store, as `version`; samplers pull it by themselves."""
        sampler = self._config.sampler
        dtype = sampler.engine.wire_dtype(sampler.on_gpu)
        published = self._actors.store.publish.remote(version, self._actors.groups["policy"].hosts, dtype)
        self._wait(published, "policy weights to be published")
        self.version = version
        self._wait(self._actors.pool.published.remote(version), "the rollout pool")

    def heal(self) -> str | None:
        """Publish again if the store lost its weights; the line for people. While nothing is trained, the policy still
        is that version."""
        if self._wait(self._actors.store.version.remote(), "the weight store") >= self.version:
            return None
        self.publish(self.version)
        return f"the weight store lost its weights: version {self.version} is published again"


class Credit(Waiting):
    """The credit assigner."""

    def __init__(self, group: ActorGroup, config: PPOConfig) -> None:
        self._group, self._config = group, config

    def assign(
        self, collected: Collected, version: int, kl_coef: float, rollouts_file: str | None, **outputs: Refs | None
    ) -> StepOutcome:
        """A_t, R_t and who is trained on, from the roles' outputs: see `CreditAssigner.assign`."""
        outcome, batch = self._group.call_first(
            "assign",
            num_returns=2,
            version=version,
            kl_coef=kl_coef,
            rollouts_file=rollouts_file,
            **_given(collected, outputs),
        )
        known: StepOutcome = self._wait(outcome, "scores and log-probabilities")
        return replace(known, batch=batch)

    def evaluate(self, collected: Collected, rollouts_file: str, **outputs: Refs | None) -> dict[str, float]:
        """Metrics of held-out responses."""
        metrics = self._group.call_first("evaluate", rollouts_file=rollouts_file, **_given(collected, outputs))
        return dict(self._wait(metrics, "the held-out evaluation"))

    def select(
        self, collected: Collected, scores: Refs, kept: Collected | None, tolerance: float, max_groups: int
    ) -> tuple[int, Any, Any]:
        """(number of groups, references to rollouts and to scores): see `CreditAssigner.select`."""
        before = None if kept is None else [kept.rollouts, *(kept.scores or ())]
        count, rollouts, merged = self._group.call_first(
            "select",
            num_returns=3,
            rollouts=collected.rollouts,
            scores=scores,
            kept=before,
            num_generations=self._config.num_generations,
            tolerance=tolerance,
            max_groups=max_groups,
        )
        return int(self._wait(count, "the scores of the groups")), rollouts, merged


class Learners(Waiting):
    """Policy and critic in training."""

    def __init__(self, groups: dict[str, ActorGroup], config: PPOConfig) -> None:
        self._config = config
        self._policy, self._critic = groups["policy"], groups.get("critic")

    def update(self, outcome: StepOutcome, step: int) -> dict[str, float]:
        """Several epochs of minibatches; policy and critic learn side by side. Metrics, averaged over updates."""
        algorithm, seed, batch = self._config.algorithm, self._config.run.seed, outcome.batch
        policy: list[Refs] = []
        critic: list[Refs] = []
        for epoch in range(algorithm.num_epochs):
            batches = epoch_batches(outcome.num_trained, algorithm.minibatch_size, (seed, step, epoch))
            for index, rows in enumerate(batches):
                given = {"batch": batch, "rows": rows, "seed": (seed, step, epoch, index)}
                if step >= algorithm.first_policy_step:
                    temperature = self._config.learning_temperature
                    policy.append(self._policy.call("update", **given, temperature=temperature))
                if self._critic is not None:
                    critic.append(self._critic.call("update", **given))
        of_policy = [StepReport.merge(self._wait_all(reports, "policy update")) for reports in policy]
        of_critic = [StepReport.merge(self._wait_all(reports, "critic update")) for reports in critic]
        metrics = _average(of_policy) | _average(of_critic)
        first = next((update for update in of_policy if "policy/ratio_mean" in update), None)
        return metrics if first is None else metrics | {"policy/first_ratio_mean": first["policy/ratio_mean"]}

    def save(self, folder: str) -> None:
        """The trained models as Hugging Face folders below `folder`."""
        trained = {"policy": self._policy} | ({"critic": self._critic} if self._critic else {})
        refs = [ref for name, group in trained.items() for ref in group.call("save", folder=f"{folder}/{name}")]
        self._wait_all(refs, "the checkpoint to be written")


class Others:
    """Roles that the loop does not name: an algorithm reads their outputs by name."""

    def __init__(self, handles: Mapping[str, Handle]) -> None:
        self._handles = handles

    def ask(self, collected: Collected) -> dict[str, Refs | None]:
        """By name of the output."""
        return {name: handle.ask(collected) for name, handle in self._handles.items()}


def _given(collected: Collected, outputs: dict[str, Refs | None]) -> dict[str, Any]:
    """The credit assigner's arguments, without the outputs that no role has."""
    given: dict[str, Any] = {name: shares for name, shares in outputs.items() if shares is not None}
    if collected.greedy is not None:
        given["greedy"] = collected.greedy.rollouts
    return {"rollouts": collected.rollouts, **given}


def _average(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the updates that have it; steps that were skipped are added up."""
    names = {name for update in metrics for name in update}
    return {
        name: sum(values) if name.endswith("skipped_steps") else sum(values) / len(values)
        for name in sorted(names)
        if (values := [update[name] for update in metrics if name in update])
    }
