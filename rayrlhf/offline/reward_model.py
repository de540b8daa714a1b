"""Reward-model training on Ray Train."""

from __future__ import annotations

from typing import Literal

from rayrlhf.config import ConfigError
from rayrlhf.data.tokens.prepare import Part
from rayrlhf.models import load_tokenizer
from rayrlhf.models.scalar import check_scalar_type
from rayrlhf.offline.config import OfflineConfig, PairData
from rayrlhf.offline.stage import Stage, run_offline
from rayrlhf.run_directory import RunDirectory
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.reward_model import PairwiseLoss, RewardModelWorker


class RewardModelConfig(OfflineConfig):
    """Configuration of `stage: reward_model`."""

    stage: Literal["reward_model"] = "reward_model"
    data: PairData
    training: SupervisedTraining = SupervisedTraining()
    loss: PairwiseLoss = PairwiseLoss()

    def check_type(self) -> None:
        check_scalar_type(self.model)


def run_reward_model(config: RewardModelConfig) -> RunDirectory:
    """Train a scalar head on `config.model`; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _check(config: RewardModelConfig, training: Part) -> None:
    if config.loss.margin_from_scores and not training.values.any():
        raise ConfigError(
            f"loss.margin_from_scores is {config.loss.margin_from_scores:g}, but no training pair has scores: "
            "set loss.margin_from_scores=0, or read data with two scores a pair"
        )


def _build(
    config: RewardModelConfig, total_steps: int, training: Part, heldout: Part, ranks: Ranks
) -> RewardModelWorker:
    return RewardModelWorker(
        config.model,
        load_tokenizer(config.model),
        config.training,
        config.loss,
        (training.tokens[0], training.tokens[1]),
        (heldout.tokens[0], heldout.tokens[1]),
        total_steps,
        ranks,
        training.values,
    )


STAGE = Stage(
    title="reward model",
    shown=("reward_model/loss", "eval/accuracy", "eval/length_baseline_accuracy", "eval/num_pairs"),
    kind=lambda config: "preferences",
    build=_build,
    check=_check,
)
