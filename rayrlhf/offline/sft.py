"""Supervised fine-tuning on Ray Train."""

from __future__ import annotations

from typing import Literal

from rayrlhf.data.tokens.prepare import Part
from rayrlhf.models import load_tokenizer
from rayrlhf.offline.config import OfflineConfig, OfflineData
from rayrlhf.offline.stage import Stage, run_offline
from rayrlhf.run_directory import RunDirectory
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.sft import SFTWorker


class SFTData(OfflineData):
    """Prompts with answers."""

    train_on_prompt: bool = False
    """Train on the tokens of the prompt too."""


class SFTConfig(OfflineConfig):
    """Configuration of `stage: sft`."""

    stage: Literal["sft"] = "sft"
    data: SFTData
    training: SupervisedTraining = SupervisedTraining()


def run_sft(config: SFTConfig) -> RunDirectory:
    """Fine-tune `config.model` on answers; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _build(config: SFTConfig, total_steps: int, training: Part, heldout: Part, ranks: Ranks) -> SFTWorker:
    return SFTWorker(
        config.model,
        load_tokenizer(config.model),
        config.training,
        training.tokens[0],
        heldout.tokens[0],
        total_steps,
        ranks,
        config.data.train_on_prompt,
    )


STAGE = Stage(
    title="sft",
    shown=("sft/loss", "eval/loss", "eval/perplexity", "sft/learning_rate"),
    kind=lambda config: "answers",
    build=_build,
)
