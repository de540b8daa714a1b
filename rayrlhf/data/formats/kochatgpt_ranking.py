"""kochatgpt RM: `{prompt, completion_0, completion_1, …, ranking}`, also numbered from 1; `ranking` is an order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from rayrlhf.data.formats.base import FromCell, Row, Whole, pairs_of
from rayrlhf.data.ingest.pairing import pairs_of_ranking
from rayrlhf.data.ingest.records import Kind, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules

COMPLETION = re.compile(r"completion_(\d{1,3})")


class KochatgptRanking(Row):
    name: ClassVar[str] = "kochatgpt_ranking"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: str
    ranking: Annotated[list[Whole | None], FromCell]
    completions: list[str] = Field(min_length=2)
    first_number: int
    """0 or 1: how the file numbers the first completion."""

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, value: Any) -> Any:
        if not isinstance(value, dict) or cls.missing(value):
            return value
        names = _numbered(value)
        return {
            "prompt": value["prompt"],
            "ranking": value["ranking"],
            "completions": [value[name] for name in names],
            "first_number": int(names[0] != "completion_0"),
        }

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        return {"prompt", "ranking"} <= value.keys() and any(map(COMPLETION.fullmatch, value))

    @classmethod
    def required(cls) -> frozenset[str]:
        return frozenset({"prompt", "completion_0", "completion_1", "ranking"})

    @classmethod
    def reads(cls, field: str) -> bool:
        return field in ("prompt", "ranking") or COMPLETION.fullmatch(field) is not None

    @classmethod
    def missing(cls, value: Mapping[str, Any]) -> list[str]:
        """Completions are numbered without a gap, whether from 0 or from 1."""
        return [name for name in ("prompt", "ranking", *_numbered(value)) if name not in value]

    def prompt_text(self) -> PromptText:
        return PromptText.of(self.prompt)

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        # The set's generator wrote the index of the best completion first.
        pairs, notes = pairs_of_ranking(self.ranking, len(self.completions), rules, "order", self.first_number)
        return pairs_of(self.prompt_text(), self.completions, pairs, origin, "ranking", notes)


def _numbered(value: Mapping[str, Any]) -> list[str]:
    """The names of a row's completions, missing ones included, in order."""
    numbers = [int(found[1]) for name in value if (found := COMPLETION.fullmatch(name))]
    first = 0 if 0 in numbers else 1
    return [f"completion_{number}" for number in range(first, max(numbers, default=1) + 1)]
