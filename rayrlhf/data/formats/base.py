"""A format is the pydantic model of one row; it is recognized by its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rayrlhf.data.files.base import BadRow
from rayrlhf.data.files.json_lines import parse
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Answer, Kind, LabeledAnswer, Message, Origin, Preference, PromptText, Record
from rayrlhf.data.ingest.rules import RowRules


class Row(BaseModel):
    """One row of a data file. A subclass overrides the methods for what its rows hold."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)

    name: ClassVar[str]
    gives: ClassVar[tuple[Kind, ...]]
    """The kinds of records it can give, the richest first."""

    @classmethod
    def recognizes(cls, value: dict[str, Any]) -> bool:
        """Whether a raw row is of this format; by its keys, unless a subclass checks more."""
        return cls.required() <= value.keys()

    @classmethod
    def required(cls) -> frozenset[str]:
        """The keys that a row of this format must have."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items() if field.is_required())

    @classmethod
    def can_give(cls, kind: Kind) -> bool:
        """Whether rows of this format can be read as `kind`: a pair is two labeled answers too."""
        return kind in cls.gives or (kind == "labeled_answers" and "preferences" in cls.gives)

    @classmethod
    def reads(cls, field: str) -> bool:
        """Whether rows of this format have a field of this name."""
        return field in cls.model_fields

    @classmethod
    def missing(cls, value: dict[str, Any]) -> list[str]:
        """Required columns that `value` lacks."""
        return sorted(cls.required() - value.keys())

    def prompt_text(self) -> PromptText:
        """The prompt. Every format has one."""
        raise NotImplementedError

    def prompts(self, origin: Origin) -> list[Record]:
        """The prompts of this row."""
        return [Record(self.prompt_text(), origin=origin)]

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        """The answers to train on; of several, the best one. Raises Rejected if the row has none."""
        best = self.preferences(origin, rules)[0]
        return [Answer(best.prompt, best.chosen, origin=origin)]

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        """Chosen/rejected pairs. Raises Rejected if the row has none."""
        raise NotImplementedError

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        """Answers that somebody found good or bad; of each pair both."""
        return [answer for pair in self.preferences(origin, rules) for answer in pair.labeled]


class GroupedRow(Row):
    """A row that is only meaningful together with others: rows of one `group_key` give records together."""

    def group_key(self) -> str:
        """Equal for rows of one group."""
        raise NotImplementedError

    @classmethod
    def group_preferences(
        cls, rows: Sequence[Any], origins: Sequence[Origin], rules: RowRules
    ) -> tuple[list[Preference], dict[int, str], dict[str, int]]:
        """(pairs, {index of a row that is in no pair: reason}, {reason: pairs that could not be made})."""
        raise NotImplementedError


ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant"}
"""Other names of roles in data files."""


class Turn(BaseModel):
    """A message as data files write it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(lambda role: ROLES.get(role, role) if isinstance(role, str) else role),
    ]
    content: str

    def message(self) -> Message:
        return Message(self.role, self.content)


def _from_cell(value: Any) -> Any:
    """Parse a list or mapping that a CSV cell holds as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        found = parse(value)
        if not isinstance(found, BadRow):
            return found
        if found.reason == "half of a character":
            raise Rejected(found.reason, found.detail)
    return value


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


TRUE, FALSE = ("true", "1"), ("false", "0")


def is_truth_value(value: Any) -> bool:
    """Whether a column's value is a yes or no: true, false, 1 or 0, or these as the text of a table's cell."""
    return str(value).strip().lower().removesuffix(".0") in TRUE + FALSE


def _truth(value: Any) -> Any:
    return str(value).strip().lower().removesuffix(".0") in TRUE if is_truth_value(value) else value


FromCell = BeforeValidator(_from_cell)
"""For lists and mappings, which CSV writes as JSON text."""
Whole = Annotated[int, Field(strict=False), BeforeValidator(_no_truth_value)]
"""A whole number, which CSV writes as text and some tables as 1.0."""
Truth = Annotated[bool, BeforeValidator(_truth)]
"""True or false, which some data write as 1 and 0, and tables as text."""
Score = Annotated[float, Field(strict=False, allow_inf_nan=False), BeforeValidator(_no_truth_value)]
Margin = Annotated[
    float,
    Field(strict=False, ge=0, allow_inf_nan=False),
    BeforeValidator(lambda value: 0.0 if value in (None, "") else _no_truth_value(value)),
]
"""By how much a chosen answer is better; 0 where a table's cell is empty."""


def several(origin: Origin, count: int, rule: str | None = None, notes: tuple[str, ...] = ()) -> Origin:
    """The origin of each of `count` records made from one row, by `rule`."""
    if count == 1 and rule is None and not notes:
        return origin
    return replace(origin, siblings=count, rule=rule, notes=notes)


def pairs_of(
    prompt: PromptText,
    answers: Sequence[str],
    indices: Sequence[tuple[int, int]],
    origin: Origin,
    rule: str,
    notes: tuple[str, ...] = (),
) -> list[Preference]:
    """Preferences from (better, worse) indices of `answers`."""
    own = several(origin, len(indices), rule, notes)
    return [Preference(prompt, answers[better], answers[worse], origin=own) for better, worse in indices]
