"""vaiv pairs, and most preference sets: `{prompt, chosen, rejected}` with strings; `input` is a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import Instructed, ScoredSides
from rayrlhf.data.formats.chat_pair import ChatPair
from rayrlhf.data.formats.dialogue_pair import DialoguePair
from rayrlhf.data.ingest.records import Kind, Origin, Preference
from rayrlhf.data.ingest.rules import RowRules

CHOSEN = ("chosen", "chosen_response")


class PreferencePair(Instructed, ScoredSides):
    name: ClassVar[str] = "preference_pair"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    chosen: str = Field(validation_alias=AliasChoices(*CHOSEN))
    rejected: str = Field(validation_alias=AliasChoices("rejected", "rejected_response"))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return not cls.missing(value) and not (ChatPair.recognizes(value) or DialoguePair.recognizes(value))

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        return [Preference(self.prompt_text(), self.chosen, self.rejected, self.margin_of(rules), origin=origin)]
