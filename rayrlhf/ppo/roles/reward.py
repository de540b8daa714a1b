"""The reward: workers that score responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field

from rayrlhf.config import ConfigError
from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.models.scalar import check_reward_model
from rayrlhf.ppo.roles.spec import Output, RoleInputs, RoleSettings, RoleSpec
from rayrlhf.rewards import Reward, RewardModelReward, TextReward, check_columns, singles
from rayrlhf.training.parallel import Ranks
from rayrlhf.workers.scorer import ScorerConfig

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.rewarder import Rewarder


class RewardRole(RoleSettings, ScorerConfig):
    """Workers that score responses."""

    source: Reward
    max_reject_share: float = Field(default=0.1, ge=0, le=1)
    """The run stops when more than this share of a step's responses gets no score."""

    def resolved(self) -> Self:
        return self.model_copy(update={"source": self.source.resolved()})


def _reward_models(config: PPOConfig) -> list[RewardModelReward]:
    return [source for source in singles(config.reward.source) if isinstance(source, RewardModelReward)]


def _models(config: PPOConfig) -> dict[str, str]:
    return {f"reward.{i}" if i else "reward": source.model for i, source in enumerate(_reward_models(config))}


def _check(config: PPOConfig) -> None:
    """Each reward that needs no model starts once: a function that cannot be used is found now."""
    check_columns(config.reward.source, config.data.columns)
    for source in singles(config.reward.source):
        if isinstance(source, TextReward):
            source.start(config.data.columns).close()
            if source.needs_gold_answers and not config.data.gold_answers:
                raise ConfigError(
                    f"reward.source: {type(source).__name__} compares responses with the data's answers: "
                    "set data.gold_answers=true, and give data with answers"
                )
    for model in _reward_models(config):
        check_reward_model(model.model)
        if not model.retokenize:
            check_same_vocabulary(config.model, model.model)


def _build(config: PPOConfig, inputs: RoleInputs, ranks: Ranks) -> Rewarder:
    import ray

    from rayrlhf.workers.rewarder import Rewarder

    gold_answers, columns = (None, None) if inputs.known is None else ray.get(inputs.known)
    return Rewarder(config.reward.source, config.reward, config.model, gold_answers, ranks, columns)


REWARD = RoleSpec(
    "reward", _build, models=_models, check=_check, output=lambda config: Output("scores", "score"), restartable=True
)
