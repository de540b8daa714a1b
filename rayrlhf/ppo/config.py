"""Settings of a PPO run: the five roles, their models and resources, the algorithm and the data."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rayrlhf.algorithms import PPO, AnyAlgorithm
from rayrlhf.algorithms.presets import PRESETS, PresetName, under, with_raw_scores
from rayrlhf.cluster.placement import PlacementConfig, Resources
from rayrlhf.config import Config
from rayrlhf.data.tokens.columns import ColumnNames
from rayrlhf.data.tokens.prepare import DataConfig
from rayrlhf.data.tokens.tokenise import PromptLimit, SequenceLimit
from rayrlhf.engines import Adapters, Sampling
from rayrlhf.models.folder import skeleton
from rayrlhf.models.lora import target_names
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.ppo.roles import ROLES, roles_of
from rayrlhf.ppo.roles.critic import CriticRole
from rayrlhf.ppo.roles.policy import PolicyRole
from rayrlhf.ppo.roles.reference import ReferenceRole
from rayrlhf.ppo.roles.reward import RewardRole
from rayrlhf.ppo.roles.sampler import SamplerRole
from rayrlhf.rewards import RewardModelReward, singles
from rayrlhf.run_directory import RunConfig, resolve
from rayrlhf.weights import AnyTransport, ObjectStore


class PromptData(DataConfig, PromptLimit):
    """Prompts, and what to do with long ones."""

    gold_answers: bool = False
    """Read each prompt's answer too, for rewards that compare with it (GSM8K's solution)."""
    columns: ColumnNames = ()
    """Columns of the data that reward functions and servers get by name, with each prompt's value."""


class PtxConfig(DataConfig, SequenceLimit):
    """Prompts with answers, whose language-model loss is mixed into the policy's (PPO-ptx)."""

    heldout_share: float = Field(default=0.0, ge=0, lt=1)
    coef: PositiveFloat = 1.0
    """Weight of that loss, a token mean (Ouyang et al. 2022 took 27.8)."""
    batch_size: PositiveInt = 32
    """Rows in each optimizer step, over all ranks."""


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
    """Configuration of `stage: ppo`."""

    stage: Literal["ppo"] = "ppo"
    run: RunConfig
    model: str
    """The policy's starting model, a folder: usually what SFT wrote."""
    reward: RewardRole
    sampler: SamplerRole = SamplerRole()
    reference: ReferenceRole = ReferenceRole()
    policy: PolicyRole = PolicyRole()
    critic: CriticRole = CriticRole()
    placement: PlacementConfig = PlacementConfig()
    preset: PresetName | None = None
    """Set what another project's PPO does; whatever the configuration says itself stays."""
    algorithm: AnyAlgorithm = PPO()
    rollouts: RolloutsConfig = RolloutsConfig()
    sampling: Sampling = Sampling()
    lm_head_precision: Literal["auto", "float32", "model"] = "auto"
    """What logits are computed in, by policy, reference and samplers alike. In bfloat16 (`model`, if the rest is) they
    have 8 bits, and sampler and learner differ in the last ones. `auto` is float32 for a bfloat16 policy on a GPU."""
    weights: AnyTransport = ObjectStore()
    """How the policy's weights reach the samplers."""
    data: PromptData
    ptx: PtxConfig | None = None
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

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or tree.get("preset") not in PRESETS:
            return tree
        name, algorithm = tree["preset"], tree.get("algorithm") or {}
        kind = algorithm.get("kind", "ppo") if isinstance(algorithm, dict) else algorithm
        if kind != "ppo":
            raise ValueError(f"preset {name!r} is of PPO, but algorithm.kind is {kind!r}: leave out one of the two")
        own = algorithm if isinstance(algorithm, dict) else {}
        reward = tree.get("reward")
        if isinstance(reward, dict):
            reward = {**reward, "source": with_raw_scores(reward.get("source"))}
        return under(PRESETS[name], {**tree, "algorithm": own, "reward": reward})

    @model_validator(mode="after")
    def _sizes_fit(self) -> PPOConfig:
        if self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of num_generations {self.num_generations}"
            )
        if self.algorithm.minibatch_size > self.batch_size:
            raise ValueError(
                f"algorithm.minibatch_size {self.algorithm.minibatch_size} exceeds the step's "
                f"batch_size {self.batch_size}: lower it"
            )
        if self.algorithm.first_policy_step >= self.num_steps:
            raise ValueError(
                f"algorithm.critic_warmup_steps {self.algorithm.first_policy_step} leaves none of num_steps "
                f"{self.num_steps} for the policy: lower it"
            )
        least = self.algorithm.min_generations
        if self.num_generations < least:
            raise ValueError(
                f"algorithm {self.algorithm.kind!r} compares responses to one prompt: set num_generations={least} or "
                f"more (8 is usual; it is {self.num_generations})"
            )
        return self

    @model_validator(mode="after")
    def _logprobs_mean_the_same(self) -> PPOConfig:
        if self.sampling.has_comparable_logprobs:
            return self
        same = (
            "mean the same only at temperature 1 or without top_k and top_p, never at temperature 0 or with a "
            "repetition_penalty: change sampling, or set"
        )
        if self.algorithm.importance_correction is not None:
            raise ValueError(
                "algorithm.importance_correction compares the sampler's log-probabilities with the learner's, which "
                f"{same} algorithm.importance_correction=null"
            )
        if self.algorithm.old_logprobs == "sampler":
            raise ValueError(
                "algorithm.old_logprobs 'sampler' takes the sampler's log-probabilities for the learner's, which "
                f"{same} algorithm.old_logprobs=learner"
            )
        return self

    @model_validator(mode="after")
    def _rollouts_fit(self) -> PPOConfig:
        shortest = self.rollouts.shortest_lease_s(self.sampling.max_completion_length)
        if self.rollouts.lease_timeout_s < shortest:
            raise ValueError(
                f"rollouts.lease_timeout_s {self.rollouts.lease_timeout_s:g} is shorter than a single response can "
                f"take: {self.sampling.max_completion_length} tokens need {shortest:g} s on the fastest machine; set "
                "600 or more, or lower sampling.max_completion_length"
            )
        autoscale = self.rollouts.autoscale
        if autoscale and not autoscale.min_workers <= self.sampler.num_workers <= autoscale.max_workers:
            raise ValueError(
                f"sampler.num_workers {self.sampler.num_workers} is where rollouts.autoscale starts: it must lie "
                f"between min_workers {autoscale.min_workers} and max_workers {autoscale.max_workers}"
            )
        return self

    def resolved(self) -> Self:
        """With absolute paths, as actors in other working directories need them."""
        sections = [role.name for role in ROLES if role.reserves] + ["data"] + (["ptx"] if self.ptx else [])
        resolved = {name: getattr(self, name).resolved() for name in sections}
        return self.model_copy(update={"model": resolve(self.model), **resolved})

    @property
    def reserved_roles(self) -> dict[str, Resources]:
        """What the run cannot do without: of the samplers one, unless they share devices with another role."""
        colocated = any("sampler" in names for names in self.placement.colocate)
        samplers = self.sampler if colocated else self.sampler.model_copy(update={"num_workers": 1})
        return {**self.roles, "sampler": samplers}

    @property
    def roles(self) -> dict[str, Resources]:
        """The roles that the algorithm needs, each with what it reserves."""
        return {role.name: role.resources(self) for role in roles_of(self) if role.reserves}

    @property
    def optimizer_steps_per_step(self) -> int:
        """Optimizer steps on one step's rollouts."""
        return self.algorithm.num_epochs * math.ceil(self.batch_size / self.algorithm.minibatch_size)

    @property
    def num_optimizer_steps(self) -> int:
        """Optimizer steps of the run."""
        return self.num_steps * self.optimizer_steps_per_step

    @property
    def num_policy_steps(self) -> int:
        """Those of the policy, which may begin later than the critic: the length of its schedule."""
        return (self.num_steps - self.algorithm.first_policy_step) * self.optimizer_steps_per_step

    @property
    def logprob_gap_limit(self) -> float:
        """Nats; see `max_logprob_gap`."""
        if self.max_logprob_gap is not None:
            return self.max_logprob_gap
        return 1e-4 if self._samples_exactly else 0.5

    @property
    def first_ratio_limit(self) -> float:
        """How far from 1 the mean ratio of a step's first minibatch may be. It has the sampler's rounding in it where
        the old log-probabilities are the sampler's."""
        return 0.01 if self.algorithm.old_logprobs == "learner" or self._samples_exactly else 0.1

    @property
    def compares_logprobs(self) -> bool:
        """Whether a step has the sampler's and the learner's log-probabilities, and they mean the same."""
        return self.sampling.has_comparable_logprobs and self.algorithm.old_logprobs == "learner"

    @property
    def _samples_exactly(self) -> bool:
        """Whether sampler and learner both compute in float32."""
        learner_is_exact = self.policy.compute_precision in ("auto", "float32")
        return learner_is_exact and self.sampler.engine.samples_exactly(self.sampler.on_gpu)

    @property
    def learning_temperature(self) -> float:
        """Log-probabilities are those of the distribution that was sampled; greedy sampling has none of its own."""
        return self.sampling.temperature or 1.0

    @property
    def critic_model(self) -> str:
        """What the critic starts from: the first reward model that reads the policy's tokens, else the policy."""
        reward_models = [source.model for source in self.token_reward_models]
        return self.critic.model or (reward_models or [self.model])[0]

    @property
    def critic_normalizes(self) -> bool:
        """Whether the critic starts in the units of normalized scores: see `critic.normalize`."""
        if self.critic.normalize is not None:
            return self.critic.normalize
        return all(source.normalize for source in self.token_reward_models[:1])

    @property
    def float32_head(self) -> bool:
        """Whether policy, reference and samplers compute logits in float32; see `lm_head_precision`."""
        if self.lm_head_precision == "auto":
            return self.policy.num_gpus > 0 and self.policy.compute_precision != "float32"
        return self.lm_head_precision == "float32"

    @property
    def token_reward_models(self) -> list[RewardModelReward]:
        """The reward models that share the policy's vocabulary."""
        sources = singles(self.reward.source)
        return [source for source in sources if isinstance(source, RewardModelReward) and not source.retokenize]

    @property
    def sent_adapters(self) -> Adapters | None:
        """What samplers get in place of whole weights, if they do. Reads the model's configuration."""
        lora = self.policy.lora
        if lora is None or not self.policy.sends_adapters:
            return None
        return Adapters(lora.rank, lora.alpha, tuple(target_names(skeleton(self.model), lora)))

    @property
    def reference_model(self) -> str:
        return self.reference.model or self.model
