"""A format is the pydantic model of one row; it is recognized by its fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rayrlhf.data.files.base import BadRow
from rayrlhf.data.files.json_lines import parse
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import (
    Answer,
    Kind,
    LabeledAnswer,
    Message,
    Origin,
    Preference,
    PromptText,
    Record,
    Role,
)
from rayrlhf.data.ingest.rules import RowRules


class Row(BaseModel):
    """One row of a data file. A subclass overrides the methods for what its rows hold."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)

    name: ClassVar[str]
    gives: ClassVar[tuple[Kind, ...]]
    """The kinds of records it can give, the richest first."""
    advice: ClassVar[str] = ""
    """What its rows are and what to do, for a kind that it does not give."""
    without_label: ClassVar[str] = ""
    """The formats of such rows whose label is no verdict on the answer."""

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        """Whether a raw row is of this format; by its keys, unless a subclass checks more."""
        return not cls.missing(value)

    @classmethod
    def required(cls) -> frozenset[str]:
        """The keys that a row of this format must have, each by its first name."""
        return frozenset(names[0] for names in _required_names(cls))

    @classmethod
    def can_give(cls, kind: Kind) -> bool:
        """Whether rows of this format can be read as `kind`: a pair is two labeled answers too."""
        return kind in cls.gives or (kind == "labeled_answers" and "preferences" in cls.gives)

    @classmethod
    def reads(cls, field: str) -> bool:
        """Whether rows of this format have a field or column of this name."""
        return field in _all_names(cls)

    @classmethod
    def passed_over(cls, value: Mapping[str, Any]) -> set[str]:
        """Columns of a row that stand for a field which another of its columns gives."""
        present = [[name for name in names if name in value] for names in _names(cls).values()]
        return {name for names in present for name in names[1:]} - {names[0] for names in present if names}

    @classmethod
    def missing(cls, value: Mapping[str, Any]) -> list[str]:
        """Required columns that `value` lacks."""
        return sorted(names[0] for names in _required_names(cls) if value.keys().isdisjoint(names))

    def prompt_text(self) -> PromptText:
        """The prompt. Every format has one."""
        raise NotImplementedError

    def prompts(self, origin: Origin, rules: RowRules) -> list[Record]:
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


@cache
def _names(row_format: type[Row]) -> dict[str, tuple[str, ...]]:
    """For each field, the names that its column may have."""
    found: dict[str, tuple[str, ...]] = {}
    for name, field in row_format.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        found[name] = tuple(map(str, choices))
    return found


@cache
def _required_names(row_format: type[Row]) -> tuple[tuple[str, ...], ...]:
    fields = row_format.model_fields
    return tuple(names for name, names in _names(row_format).items() if fields[name].is_required())


@cache
def _all_names(row_format: type[Row]) -> frozenset[str]:
    names = _names(row_format)
    return frozenset(names).union(*names.values())


def first_of(value: Mapping[str, Any], names: Collection[str]) -> Any:
    """The row's value under the first of `names` that it has; None if it has none."""
    return next((value[name] for name in names if name in value), None)


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


ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Other names of roles in data files."""
NOT_CARRIED = {
    "tool_calls": "tool calls",
    "function_call": "tool calls",
    "reasoning_content": "part of a message that is not read",
    "thinking": "part of a message that is not read",
    "images": "content that is not text",
    "audio": "content that is not text",
}
"""What messages hold beside their content and would lose: the row is rejected, for this reason."""


def _role(role: Any) -> Any:
    if role == "function_call":
        raise Rejected("tool calls", "a turn is by 'function_call', which records do not hold: write it as content")
    return ROLES.get(role, role) if isinstance(role, str) else role


def _joined(content: Any) -> Any:
    """The text of a content that is a list of parts."""
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        return content
    for part in content:
        if not isinstance(part.get("text"), str):
            raise Rejected("content that is not text", f"a message holds a part of type {str(part['type'])[:40]!r}")
    return "".join(part["text"] for part in content)


class Turn(BaseModel):
    """A message as data files write it: `{role, content}`, or ShareGPT's `{from, value}`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    role: Annotated[Role, BeforeValidator(_role)] = Field(validation_alias=AliasChoices("role", "from"))
    content: Annotated[str, BeforeValidator(_joined)] = Field(validation_alias=AliasChoices("content", "value"))

    @model_validator(mode="before")
    @classmethod
    def _loses_nothing(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > 2:
            for name, reason in NOT_CARRIED.items():
                if value.get(name):
                    raise Rejected(reason, f"a message has {name!r}, which records do not hold: write it as content")
            is_answer = _role(value.get("role", value.get("from"))) == "assistant"  # nothing else is trained anyway
            if is_answer and value.get("weight", 1) not in (1, None):
                raise Rejected("part of a message that is not read", "an answer has a weight: remove it")
        return value

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


def is_label(value: Any) -> bool:
    """Whether a column's value is a verdict on an answer; -1 is one that has to be written otherwise."""
    return is_truth_value(value) or str(value).strip().removesuffix(".0") == "-1"


def _truth(value: Any) -> Any:
    if is_label(value) and not is_truth_value(value):
        raise ValueError("-1 could mean a bad answer or none: write 0 for bad, and leave out what nobody judged")
    return str(value).strip().lower().removesuffix(".0") in TRUE if is_truth_value(value) else value


def _turns(value: Any) -> Any:
    """Messages of texts by the user and the assistant in turn, or of exchanges `{input, output}`."""
    value = _from_cell(value)
    if not isinstance(value, list):
        return value
    texts = value
    if all(isinstance(one, dict) and {"input", "output"} <= one.keys() for one in value):
        texts = [one[side] for one in value for side in ("input", "output")]
        texts = texts[:-1] if texts and texts[-1] == "" else texts  # the answer is in another column
    if not all(isinstance(text, str) for text in texts):
        return value
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


FromCell = BeforeValidator(_from_cell)
"""For lists and mappings, which CSV writes as JSON text."""
Turns = BeforeValidator(_turns)
"""For messages, which LIMA writes as texts in turn, and Capybara as exchanges of an input and an output."""
Whole = Annotated[int, Field(strict=False), BeforeValidator(_no_truth_value)]
"""A whole number, which CSV writes as text and some tables as 1.0."""


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


EmptyCell = BeforeValidator(_none_if_empty)
"""For values that may be left out, which CSV writes as empty text."""
Truth = Annotated[bool, BeforeValidator(_truth)]
"""True or false, which some data write as 1 and 0, and tables as text."""
Score = Annotated[float, Field(strict=False, allow_inf_nan=False), BeforeValidator(_no_truth_value)]


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
    scores: Sequence[Any] | None = None,
) -> list[Preference]:
    """Preferences from (better, worse) indices of `answers`; with `scores`, their differences are the margins."""
    own = several(origin, len(indices), rule, notes)
    return [
        Preference(
            prompt,
            answers[better],
            answers[worse],
            0.0 if scores is None else scores[better] - scores[worse],
            origin=own,
        )
        for better, worse in indices
    ]
