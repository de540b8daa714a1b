"""The policy: its learners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from rayrlhf.models import LoraConfig
from rayrlhf.ppo.roles.spec import Output, RoleInputs, RoleSettings, RoleSpec
from rayrlhf.training.inputs import check_training
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.parallel import Ranks

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.learner import PolicyLearner


class PolicyLora(LoraConfig):
    """Adapters of the policy, and what of them the samplers get."""

    send: Literal["merged", "adapters"] = "merged"
    """`merged`: whole weights with the adapters added in, for every model and engine. `adapters`: these alone, about a
    hundredth of the bytes, which vLLM adds to the starting model's weights as it computes; it samples slower then,
    most of all on a CPU, where it has no kernel for them."""

    @model_validator(mode="after")
    def _samplers_have_the_learners_base(self) -> PolicyLora:
        if self.send == "adapters" and self.load_in_4bit:
            raise ValueError(
                "send 'adapters' contradicts load_in_4bit=true: samplers would add them to the unrounded weights and "
                "sample from another policy than the one that learns: set send to merged, or load_in_4bit to false"
            )
        return self


class PolicyRole(RoleSettings, TrainingConfig):
    """Learners of the policy."""

    lora: PolicyLora | None = None
    """Train low-rank adapters instead of all weights; null trains all."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep a moving average of the weights with this decay per optimizer step, and save it beside them in
    `policy_ema`."""

    @property
    def sends_adapters(self) -> bool:
        """Whether samplers get the adapters alone."""
        return self.lora is not None and self.lora.send == "adapters"


def _build(config: PPOConfig, inputs: RoleInputs, ranks: Ranks) -> PolicyLearner:
    import ray

    from rayrlhf.training.ptx import PtxMix
    from rayrlhf.workers.learner import PolicyLearner

    ptx = None
    if config.ptx is not None:
        ptx = PtxMix(ray.get(inputs.ptx), config.ptx.coef, config.ptx.batch_size, config.run.seed)
    return PolicyLearner(
        config.model,
        config.policy,
        config.algorithm,
        config.num_policy_steps,
        ranks,
        ptx,
        config.policy.ema_decay,
        sends_adapters=config.policy.sends_adapters,
        transport=config.weights,
        float32_head=config.float32_head,
    )


def _output(config: PPOConfig) -> Output | None:
    if config.algorithm.old_logprobs == "sampler":
        return None  # they come with the rollouts
    return Output("old_logprobs", "logprobs", {"temperature": config.learning_temperature})


POLICY = RoleSpec(
    "policy",
    _build,
    models=lambda config: {"policy": config.model},
    check=lambda config: check_training(config.model, config.policy, "policy", config.policy.num_gpus),
    training=lambda config: config.policy,
    output=_output,
    together=True,
)
