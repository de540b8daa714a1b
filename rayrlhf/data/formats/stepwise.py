"""TRL's stepwise supervision: `{prompt, completions: [step, …], labels: [bool, …]}`, a label for each step."""

from __future__ import annotations

from typing import Any, ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind, PromptText


class Stepwise(Row):
    name: ClassVar[str] = "stepwise"
    gives: ClassVar[tuple[Kind, ...]] = ("prompts",)
    advice: ClassVar[str] = (
        "they label the steps of one answer, and no stage here trains a process reward model. For SFT join the steps "
        "of the rows whose labels are all true to {prompt, completion}; for KTO add the last label"
    )
    prompt: str
    completions: Any
    labels: Any

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)
