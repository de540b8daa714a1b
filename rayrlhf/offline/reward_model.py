"""Reward-model training on Ray Train."""

from __future__ import annotations

from typing import Literal

from rayrlhf.data.tokens.prepare import TokenSet
from rayrlhf.models import load_tokenizer
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


def run_reward_model(config: RewardModelConfig) -> RunDirectory:
    """Train a scalar head on `config.model`; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _build(
    config: RewardModelConfig, total_steps: int, training: TokenSet, heldout: TokenSet, ranks: Ranks
) -> RewardModelWorker:
    return RewardModelWorker(
        config.model,
        load_tokenizer(config.model),
        config.training,
        config.loss,
        (training[0], training[1]),
        (heldout[0], heldout[1]),
        total_steps,
        ranks,
    )


STAGE = Stage(
    title="reward model",
    shown=("reward_model/loss", "eval/accuracy", "eval/longer_answer_accuracy", "eval/num_pairs"),
    kind="preferences",
    build=_build,
)
