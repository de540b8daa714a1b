"""Checks of an offline stage's input, made before anything is started."""

from __future__ import annotations

from typing import TypeVar

from rayrlhf.config import ConfigError
from rayrlhf.data.reader import DataError, Tally
from rayrlhf.data.tokens import Sequences
from rayrlhf.models import read_model_config
from rayrlhf.run_directory import resolve
from rayrlhf.stages.offline_config import OfflineConfig

ConfigT = TypeVar("ConfigT", bound=OfflineConfig)


def resolve_paths(config: ConfigT) -> ConfigT:
    """The configuration with absolute paths, as workers in other working directories need them."""
    tree = config.model_dump()
    tree["model"] = resolve(config.model)
    for part in ("train", "heldout"):
        tree["data"][part] = [resolve(path) for path in tree["data"][part]]
    return type(config).model_validate(tree)


def check_context(config: OfflineConfig) -> None:
    """Raises ConfigError if rows may be longer than the model can read."""
    limit = getattr(read_model_config(config.model), "max_position_embeddings", None)
    if limit is not None and config.data.max_tokens > limit:
        raise ConfigError(
            f"data.max_tokens is {config.data.max_tokens}, but model {config.model!r} takes {limit}: "
            f"set data.max_tokens={limit} or less"
        )


def some(data: Sequences, setting: str, tally: Tally) -> Sequences:
    """`data`, if it has rows. Raises DataError otherwise."""
    if not len(data):
        raise DataError(f"{setting}: no row is left: {tally}; raise data.max_tokens, or give it more rows")
    return data
