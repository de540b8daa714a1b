"""HelpSteer2-Preference `{prompt, response_1, response_2, preference_strength}`, HelpSteer3
`{context: [messages], response1, response2, overall_preference}`: from -3 (the first is much better) to 3."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.base import Row, Score, pairs_of
from rayrlhf.data.formats.chat_pair import Said, messages_of
from rayrlhf.data.formats.helpsteer import helpsteer_prompt
from rayrlhf.data.ingest.pairing import pair_by_score
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class HelpSteerPreference(Row):
    name: ClassVar[str] = "helpsteer_preference"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: Said = Field(validation_alias=AliasChoices("prompt", "context"))
    response_1: str = Field(validation_alias=AliasChoices("response_1", "response1"))
    response_2: str = Field(validation_alias=AliasChoices("response_2", "response2"))
    preference_strength: Score = Field(validation_alias=AliasChoices("preference_strength", "overall_preference"))

    def prompt_text(self) -> PromptText:
        if isinstance(self.prompt, str):
            return helpsteer_prompt(self.prompt)
        return PromptText(messages_of(self.prompt, "user"))

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        strengths = (0.0, self.preference_strength)
        better = pair_by_score(strengths, rules.min_margin)
        texts = (self.response_1, self.response_2)
        return pairs_of(self.prompt_text(), texts, [better], origin, "choice", scores=strengths)
