"""Checks of an offline stage's input, made before anything is started."""

from __future__ import annotations

from typing import TypeVar

from rayrlhf.config import ConfigError
from rayrlhf.models import read_model_config
from rayrlhf.run_directory import resolve
from rayrlhf.stages.offline_config import OfflineConfig
from rayrlhf.stages.training_inputs import check_training

ConfigT = TypeVar("ConfigT", bound=OfflineConfig)


def resolve_paths(config: ConfigT) -> ConfigT:
    """The configuration with absolute paths, as workers in other working directories need them."""
    return config.model_copy(update={"model": resolve(config.model), "data": config.data.resolved()})


def check_model(config: OfflineConfig) -> None:
    """Raises UserError if the model cannot be read, is too short for the rows, or cannot be trained as asked."""
    read_model_config(config.model)
    check_context(config)
    check_training(config.model, config.training, "training")


def check_context(config: OfflineConfig) -> None:
    """Raises ConfigError if rows may be longer than the model can read."""
    limit = getattr(read_model_config(config.model), "max_position_embeddings", None)
    if limit is not None and config.data.max_tokens > limit:
        raise ConfigError(
            f"data.max_tokens is {config.data.max_tokens}, but model {config.model!r} takes {limit}: "
            f"set data.max_tokens={limit} or less"
        )
