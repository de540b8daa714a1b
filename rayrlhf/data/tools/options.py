"""Options of the tools: inputs, and settings written as `key=value`, like those of the jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from rayrlhf.config import Config, parse_config, parse_overrides
from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.files import Decoding
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.reader import default_kind
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.ingest.rules import RowRules
from rayrlhf.data.ingest.sources import Source
from rayrlhf.data.templates import Template

HUB_PREFIX = "hf:"


class ToolConfig(Config):
    """Settings of a tool: those of a source, applied to every input, and those of cleaning."""

    format: str | None = None
    columns: dict[str, str] = Field(default={})
    rules: RowRules = RowRules()
    decoding: Decoding = Decoding()
    max_rows: PositiveInt | None = None
    read_as: Kind | None = None
    """`preferences`, `answers` or `prompts`; by default the richest kind that the first input has."""
    clean: Cleaning = Cleaning()
    augment: Augmentation | None = None
    """Synthetic negatives to add; for `pairs` only."""
    template: Template | None = None
    """How `inspect` renders prompts; by default the tokenizer's chat template, or plain roles."""
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of a tool."""

    config: ToolConfig
    sources: list[Source]
    kind: Kind

    @property
    def files(self) -> list[str]:
        return [source.path for source in self.sources if source.kind == "file"]


class _Sources(Config):
    sources: list[Source]


def read_options(inputs: Sequence[str], settings: Sequence[str]) -> Inputs:
    """Inputs and `key=value` settings, checked. `hf:NAME` or `hf:NAME:SPLIT` is a Hugging Face data set.

    Raises ConfigError for an unknown setting, and DataError for an input that cannot be read.
    """
    config = parse_config(ToolConfig, parse_overrides(settings), source="settings")
    common = config.model_dump(include={"format", "columns", "rules", "max_rows"})
    sources: list[dict[str, Any]] = []
    for given in inputs:
        if given.startswith(HUB_PREFIX):
            name, _, split = given.removeprefix(HUB_PREFIX).partition(":")
            sources.append({"dataset": name, "split": split or "train", **common})
        else:
            sources.append({"path": given, "decoding": config.decoding.model_dump(), **common})
    parsed = parse_config(_Sources, {"sources": sources}, source="settings").sources
    for source in parsed:
        if source.kind == "file" and not Path(source.path).exists():
            raise DataError(f"{source.path}: no such file")
    return Inputs(config, parsed, config.read_as or default_kind(parsed[0]))
