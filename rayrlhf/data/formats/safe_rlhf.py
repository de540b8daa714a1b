"""PKU-SafeRLHF: `{prompt, response_0, response_1, better_response_id, safer_response_id}`; `rules.prefer` chooses."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import chosen_index
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules


class SafeRlhf(Row):
    name: ClassVar[str] = "safe_rlhf"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    response_0: str
    response_1: str
    better_response_id: Whole
    safer_response_id: Whole

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        chosen = self.safer_response_id if rules.prefer == "safer" else self.better_response_id
        better = chosen_index(chosen, 2)
        texts = (self.response_0, self.response_1)
        return pairs_of(self.prompt_text(), texts, [(better, 1 - better)], origin, "choice")
