"""What `rayrlhf config check` says: whether a configuration is sound, and what its preset set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rayrlhf.algorithms.presets import PRESETS, rows
from rayrlhf.config import Config, ConfigError, load_config
from rayrlhf.offline.dpo import DPOConfig
from rayrlhf.offline.reward_model import RewardModelConfig
from rayrlhf.offline.sft import SFTConfig
from rayrlhf.ppo.config import PPOConfig

CONFIGS: dict[str, type[Config]] = {
    "sft": SFTConfig,
    "reward_model": RewardModelConfig,
    "dpo": DPOConfig,
    "ppo": PPOConfig,
}


def config_class(stage: str) -> type[Config]:
    """The configuration that a stage's job reads. Raises ConfigError for a stage that there is not."""
    if stage not in CONFIGS:
        raise ConfigError(f"stage {stage!r} is not one of {', '.join(CONFIGS)}: name it with --stage")
    return CONFIGS[stage]


def check_config(path: Path, overrides: Sequence[str], stage: str) -> Iterator[str]:
    """Lines for people. Raises ConfigError with every problem at once."""
    config = load_config(config_class(stage), path, overrides)
    yield f"{path}: a sound configuration of {stage}"
    preset = getattr(config, "preset", None)
    if preset is None:
        return
    wanted = rows(PRESETS[preset])
    width = max(map(len, wanted))
    yield f"preset {preset}:"
    for name, value in wanted.items():
        now = _value_of(config, name)
        yield f"  {name:{width}}  {_written(value)}" + ("" if now == value else f"  overridden: {_written(now)}")


def _value_of(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
