"""The critic: its learners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.models.scalar import check_scalar_type
from rayrlhf.ppo.roles.spec import Output, RoleInputs, RoleSettings, RoleSpec
from rayrlhf.training.inputs import check_training
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.parallel import Ranks

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.learner import CriticLearner


class CriticRole(RoleSettings, TrainingConfig):
    """Learners of the critic."""

    model: str | None = None
    """What the critic starts from; null is the (first) reward model, or the policy where there is none."""
    normalize: bool | None = None
    """Start from normalized scores: shift and scale the head by the statistics in the model's folder. Null does so if
    the reward does (`reward.source.normalize`)."""


def _check(config: PPOConfig) -> None:
    check_scalar_type(config.critic_model)
    check_same_vocabulary(config.model, config.critic_model)
    check_training(config.critic_model, config.critic, "critic", config.critic.num_gpus)


def _build(config: PPOConfig, inputs: RoleInputs, ranks: Ranks) -> CriticLearner:
    from rayrlhf.workers.learner import CriticLearner

    return CriticLearner(
        config.critic_model,
        config.critic,
        config.algorithm,
        config.num_optimizer_steps,
        config.critic_normalizes,
        ranks,
    )


CRITIC = RoleSpec(
    "critic",
    _build,
    needed=lambda config: config.algorithm.needs_critic,
    models=lambda config: {"critic": config.critic_model},
    check=_check,
    training=lambda config: config.critic,
    output=lambda config: Output("values", "values"),
    together=True,
)
