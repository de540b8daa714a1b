"""Dahoas' sets: `{prompt, chosen, rejected}`; the prompt is a dialogue in one string that ends with `Assistant:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayrlhf.data.formats.asked import ScoredSides
from rayrlhf.data.formats.hh_rlhf import asked_in, is_open
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class DialoguePair(ScoredSides):
    name: ClassVar[str] = "dialogue_pair"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    chosen: str
    rejected: str

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        sides = (value.get("chosen"), value.get("rejected"))
        return is_open(value.get("prompt")) and all(isinstance(side, str) for side in sides)

    def prompt_text(self) -> PromptText:
        return asked_in(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        chosen, rejected = self.chosen.strip(), self.rejected.strip()  # white space around turns is the markup's
        return [Preference(self.prompt_text(), chosen, rejected, self.margin_of(rules), origin=origin)]
