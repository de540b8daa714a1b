"""Pairs of texts without a prompt, `{chosen, rejected}`: TRL's implicit prompt is what both begin with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any, ClassVar

from rayrlhf.data.formats.asked import QUESTIONS, ScoredSides
from rayrlhf.data.formats.chat_pair import ChatPair
from rayrlhf.data.formats.hh_rlhf import HhRlhf
from rayrlhf.data.ingest.account import DataError, Rejected
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText, Record
from rayrlhf.data.ingest.rules import RowRules


class ImplicitPrompt(ScoredSides):
    name: ClassVar[str] = "implicit_prompt"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    chosen: str
    rejected: str

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        if cls.missing(value) or not value.keys().isdisjoint(QUESTIONS):
            return False
        are_texts = isinstance(value["chosen"], str) and isinstance(value["rejected"], str)
        return are_texts and not (ChatPair.recognizes(value) or HhRlhf.recognizes(value))

    def prompts(self, origin: Origin, rules: RowRules) -> list[Record]:
        return [Record(self._parts(rules)[0], origin=origin)]

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        return [Preference(*self._parts(rules), self.margin_of(rules), origin=origin)]

    def _parts(self, rules: RowRules) -> tuple[PromptText, str, str]:
        """Words stay whole; white space between prompt and answers is the template's to write."""
        if rules.implicit_prompt is None:
            raise DataError(
                "chosen and rejected are texts, and no column is the prompt: name it with columns={prompt: …}, or set "
                "rules.implicit_prompt=common_prefix if both texts begin with the prompt"
            )
        pairs = zip(self.chosen, self.rejected, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        start = max(map(self.chosen[:shared].rfind, " \n\t")) + 1
        prompt = self.chosen[:start].strip()
        if not prompt:
            raise Rejected("empty prompt", "chosen and rejected do not begin with the same words")
        return PromptText.of(prompt), self.chosen[start:].lstrip(), self.rejected[start:].lstrip()
