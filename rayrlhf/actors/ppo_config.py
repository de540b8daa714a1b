"""Settings of a PPO run: the five roles, their models and resources, the algorithm and the data."""

from __future__ import annotations

import math

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rayrlhf.actors.placement import PlacementConfig, Resources
from rayrlhf.algorithms import PPO, Algorithm
from rayrlhf.config import Config
from rayrlhf.data.prepare import DataConfig
from rayrlhf.data.tokens import PromptLimit
from rayrlhf.engines import EngineConfig, Sampling, VllmEngineConfig
from rayrlhf.rewards import Reward
from rayrlhf.run_directory import RunConfig
from rayrlhf.workers.scorer import ScorerConfig
from rayrlhf.workers.trainee import TrainingConfig


class SamplerRole(Resources):
    """vLLM engines that draw responses."""

    engine: EngineConfig = VllmEngineConfig()


class RewardRole(Resources, ScorerConfig):
    """Workers that score responses."""

    source: Reward


class ReferenceRole(Resources, ScorerConfig):
    """Workers that hold the frozen reference policy."""

    model: str | None = None
    """Null is the policy's starting model."""


class PolicyRole(Resources, TrainingConfig):
    """Learners of the policy."""


class CriticRole(Resources, TrainingConfig):
    """Learners of the critic."""

    model: str | None = None
    """What the critic starts from; null is the reward model."""


class PromptData(DataConfig, PromptLimit):
    """Prompts, and what to do with long ones."""


class EvaluationConfig(Config):
    """Held-out evaluation: responses to held-out prompts, scored and compared with the reference."""

    interval: NonNegativeInt = 10
    """Steps between evaluations; there is one before the first and one after the last step too. 0 is only those."""
    num_prompts: PositiveInt = 128


class Timeouts(Config):
    """How long the loop waits before it gives up with a message."""

    start_s: PositiveFloat = 600.0
    """For all actors to have loaded their models."""
    step_s: PositiveFloat = 3600.0
    """For any one phase of a step."""


class PPOConfig(Config):
    """Everything `jobs/ppo.py` reads."""

    run: RunConfig
    model: str
    """The policy's starting model, a folder: usually what SFT wrote."""
    reward: RewardRole
    sampler: SamplerRole = SamplerRole()
    reference: ReferenceRole = ReferenceRole()
    policy: PolicyRole = PolicyRole()
    critic: CriticRole = CriticRole()
    placement: PlacementConfig = PlacementConfig()
    algorithm: Algorithm = PPO()
    sampling: Sampling = Sampling()
    data: PromptData
    num_steps: PositiveInt = 100
    batch_size: PositiveInt = 128
    """Samples (responses) of one step, over all samplers."""
    num_generations: PositiveInt = 1
    """Responses per prompt."""
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint_interval: NonNegativeInt = 0
    """Steps between checkpoints; the last step always has one. 0 is only that."""
    save_rollouts_interval: NonNegativeInt = 1
    """Steps between those whose rollouts are written as text; 0 is none."""
    max_logprob_gap: PositiveFloat | None = None
    """Warn when sampler and learner disagree by more than this on a token's log-probability (nats); null is 1e-4 for
    float32 and 0.5 for lower precision."""
    timeouts: Timeouts = Timeouts()

    @model_validator(mode="after")
    def _sizes_fit(self) -> PPOConfig:
        if self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of num_generations {self.num_generations}"
            )
        if self.algorithm.minibatch_size > self.batch_size:
            raise ValueError(
                f"algorithm.minibatch_size {self.algorithm.minibatch_size} is more than the step's "
                f"batch_size {self.batch_size}: lower it"
            )
        return self

    @property
    def roles(self) -> dict[str, Resources]:
        """The roles that reserve resources."""
        return {
            "sampler": self.sampler,
            "reward": self.reward,
            "reference": self.reference,
            "policy": self.policy,
            "critic": self.critic,
        }

    @property
    def max_sequence_tokens(self) -> int:
        """Prompt and response."""
        return self.data.max_prompt_tokens + self.sampling.max_completion_length

    @property
    def optimizer_steps_per_step(self) -> int:
        """Optimizer steps on one step's rollouts."""
        return self.algorithm.num_epochs * math.ceil(self.batch_size / self.algorithm.minibatch_size)

    @property
    def logprob_gap_limit(self) -> float:
        """Nats; see `max_logprob_gap`."""
        if self.max_logprob_gap is not None:
            return self.max_logprob_gap
        exact = self.sampler.engine.dtype in ("auto", "float32") and self.policy.compute_precision in (
            "auto",
            "float32",
        )
        return 1e-4 if exact and not self.sampler.num_gpus else 0.5

    @property
    def learning_temperature(self) -> float:
        """Log-probabilities are those of the distribution that was sampled; greedy sampling has none of its own."""
        return self.sampling.temperature or 1.0

    @property
    def critic_model(self) -> str:
        return self.critic.model or self.reward.source.model

    @property
    def reference_model(self) -> str:
        return self.reference.model or self.model
