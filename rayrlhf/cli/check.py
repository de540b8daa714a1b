"""What `rayrlhf config check` says: whether a configuration is valid, and what its preset set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rayrlhf.algorithms.presets import PRESETS, rows
from rayrlhf.cli.stages import STAGES, stage_of
from rayrlhf.config import parse_config, read_settings


def check_config(path: Path, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Lines for people. Raises ConfigError with every problem at once."""
    tree = read_settings(path, overrides)
    stage = stage_of(path, tree)
    config = parse_config(STAGES[stage]().config, tree, source=str(path))
    yield f"{path}: a valid configuration of stage {stage}"
    preset = getattr(config, "preset", None)
    if preset is None:
        return
    expected = rows(PRESETS[preset])
    width = max(map(len, expected))
    yield f"preset {preset}:"
    for name, value in expected.items():
        now = _value_of(config, name)
        yield f"  {name:{width}}  {_as_yaml(value)}" + ("" if now == value else f"  overridden: {_as_yaml(now)}")


def _value_of(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _as_yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
