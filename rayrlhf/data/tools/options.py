"""Options of the tools: inputs, and settings written as `key=value`, like those of the jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from rayrlhf.config import Config, ConfigError, parse_config, parse_overrides
from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.files import Decoding, Table
from rayrlhf.data.ingest.patterns import each_file
from rayrlhf.data.ingest.reader import check_different, common_kind
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.ingest.rules import RowRules
from rayrlhf.data.ingest.sources import Source
from rayrlhf.data.templates import Template
from rayrlhf.data.templates.special_tokens import InText

HUB_PREFIX = "hf:"
HUB_SETTING = re.compile(r",(\w+)=")
HUB_SETTINGS = ("subset", "revision", "data_dir")


class ToolConfig(Config):
    """Settings of a tool: those of a source, applied to every input, and those of cleaning."""

    format: str | None = None
    columns: dict[str, str] = Field(default={})
    rules: RowRules = RowRules()
    decoding: Decoding = Decoding()
    table: Table = Table()
    max_rows: PositiveInt | None = None
    read_as: Kind | None = None
    """`preferences`, `labeled_answers`, `answers` or `prompts`; by default the richest kind that the inputs have."""
    keep_columns: tuple[str, ...] = ()
    """Other columns that the output keeps; `columns` may name them anew."""
    clean: Cleaning = Cleaning()
    augment: Augmentation | None = None
    """Synthetic negatives to add; for `pairs` only."""
    template: Template | None = None
    """How `inspect` renders prompts; by default the tokenizer's chat template, or plain roles."""
    special_tokens_in_text: InText = "split"
    """What `inspect` and `stats` do with special tokens in the text, as the jobs' `data.special_tokens_in_text`."""
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of a tool."""

    config: ToolConfig
    sources: list[Source]
    """One for each file."""
    given: list[Path]
    """Files and folders as they were named, none of which may be written over."""

    @cached_property
    def kind(self) -> Kind:
        """What all of them are read as. Raises DataError if they give different kinds and no setting says which."""
        return self.config.read_as or common_kind(self.sources, self.config.keep_columns)

    @property
    def files(self) -> list[str]:
        return [str(source.content) for source in self.sources if source.kind == "file"]


class _Sources(Config):
    sources: list[Source]


def read_options(inputs: Sequence[str], settings: Sequence[str]) -> Inputs:
    """Inputs and `key=value` settings, checked.

    Args:
        inputs: files, folders, patterns, `-` for standard input, or
            `hf:NAME[:SPLIT][,subset=…][,revision=…][,data_dir=…]` for a Hugging Face data set.

    Raises ConfigError for an unknown setting, and DataError for an input that cannot be read.
    """
    config = parse_config(ToolConfig, parse_overrides(settings), source="settings")
    common = config.model_dump(include={"format", "columns", "rules", "max_rows"})
    of_files = config.model_dump(include={"decoding", "table"})
    trees = [
        of_hub(given) | common if given.startswith(HUB_PREFIX) else {"path": given, **of_files, **common}
        for given in inputs
    ]
    named = parse_config(_Sources, {"sources": trees}, source="settings").sources
    sources = each_file(named)
    check_different(sources)
    for source in sources:
        if source.kind == "file" and not source.is_pipe:
            source.check()  # before another one is read, which may be large
    sources = [source.held() for source in sources]
    given_paths = [source.location for source in (*named, *sources)]
    return Inputs(config, sources, given_paths)


def of_hub(given: str) -> dict[str, Any]:
    """The settings of `hf:NAME[:SPLIT][,subset=…][,revision=…][,data_dir=…]`. Raises ConfigError."""
    name, *rest = HUB_SETTING.split(given.removeprefix(HUB_PREFIX))
    dataset, _, split = name.partition(":")
    settings = dict(zip(rest[::2], rest[1::2], strict=True))
    problem = next((f"{key} is no setting of a data set" for key in settings if key not in HUB_SETTINGS), "")
    if not dataset:
        problem = "it names no data set"
    elif 2 * len(settings) < len(rest):
        problem = "it says a setting twice"
    elif empty := next((key for key, value in settings.items() if not value), ""):
        problem = f"{empty} is empty"
    if problem:
        raise ConfigError(f"{given}: {problem}; write hf:NAME[:SPLIT][,subset=…][,revision=…][,data_dir=…]")
    return {"dataset": dataset, "split": split or "train", **settings}
