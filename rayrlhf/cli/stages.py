"""The stages of training: what `stage:` of a configuration may say, and what each one reads and runs.

Every command that takes a configuration asks here. A stage is imported when it is used: `rayrlhf --help` loads neither
torch nor Ray.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrlhf.config import Config, ConfigError


@dataclass(frozen=True)
class TrainingStage:
    """One value of `stage:`."""

    config: type[Config]
    run: Callable[[Any], Any]
    describe: Callable[[Any], dict[str, Any]]
    """What `--dry-run` shows besides the settings."""


def _sft() -> TrainingStage:
    from rayrlhf.cli.describe import describe_offline
    from rayrlhf.offline.sft import SFTConfig, run_sft

    return TrainingStage(SFTConfig, run_sft, describe_offline)


def _reward_model() -> TrainingStage:
    from rayrlhf.cli.describe import describe_offline
    from rayrlhf.offline.reward_model import RewardModelConfig, run_reward_model

    return TrainingStage(RewardModelConfig, run_reward_model, describe_offline)


def _dpo() -> TrainingStage:
    from rayrlhf.cli.describe import describe_offline
    from rayrlhf.offline.dpo import DPOConfig, run_dpo

    return TrainingStage(DPOConfig, run_dpo, describe_offline)


def _ppo() -> TrainingStage:
    from rayrlhf.cli.describe import describe_ppo
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.ppo.loop import run_ppo

    return TrainingStage(PPOConfig, run_ppo, describe_ppo)


STAGES: dict[str, Callable[[], TrainingStage]] = {
    "sft": _sft,
    "reward_model": _reward_model,
    "dpo": _dpo,
    "ppo": _ppo,
}


def stage_of(path: Path, tree: dict[str, Any], job: str | None = None) -> str:
    """The stage that the settings in `tree`, read from `path`, are for. job: the stage whose `jobs/` script asks.

    Raises ConfigError if it is missing (unless a job asks), unknown, or not the job's.
    """
    stage = tree.get("stage", job)
    known = ", ".join(STAGES)
    if stage is None:
        raise ConfigError(
            f"{path}: stage is not set: add the line `stage: ppo` (one of {known}), or name it in the command: "
            f"`rayrlhf train {path} stage=ppo`"
        )
    if str(stage) not in STAGES:
        near = difflib.get_close_matches(str(stage), STAGES, n=1)
        hint = f"; did you mean `stage: {near[0]}`?" if near else f": write for example `stage: {job or 'ppo'}`"
        raise ConfigError(f"{path}: stage {stage!r} is not one of {known}{hint}")
    if job is not None and stage != job:
        raise ConfigError(
            f"{path}: stage is {stage!r}, but jobs/{job}.py runs {job!r}: "
            f"use `python jobs/{stage}.py {path}` or `rayrlhf train {path}`"
        )
    return str(stage)
