"""Rewards that rules give: patterns, equal answers, equal numbers, lengths, formats."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import regex
from pydantic import (
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from rayrlhf.config import Config
from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.callers import Callers
from rayrlhf.rewards.names import check_names_differ
from rayrlhf.rewards.numbers import final_number, is_near
from rayrlhf.rewards.text import TextJudge, TextReward

ROWS_AT_ONCE = 1024
NO_GOLD_ANSWER = "the row has no gold answer"

THINK = re.compile(r"<think>(?:(?!</?think>).)*</think>(?:(?!</?think>).)+", re.DOTALL)
THINK_ANSWER = re.compile(r"<think>(?:(?!</?think>).)*</think>\s*<answer>(?:(?!</?answer>).)*</answer>", re.DOTALL)
HASHES = re.compile(r"(?:(?!####).)*#### ?\S[^\n]*", re.DOTALL)
BOXED = re.compile(r"\\boxed\{\s*[^\s}]")


def _is_boxed(text: str) -> bool:
    line = text.rpartition("\n")[2]
    return BOXED.search(line[: max(0, line.rfind("}"))]) is not None


FORMATS: dict[str, Callable[[str], object]] = {
    "think": THINK.fullmatch,
    "think_answer": THINK_ANSWER.fullmatch,
    "boxed": _is_boxed,
    "hashes": HASHES.fullmatch,
}
"""Whether a response without white space around it has the format. Their time grows with its length, not faster."""


class CannotJudge(Exception):
    """A rule does not apply to this row; the message is the reason of its rejection."""


class BaseRule(Config):
    """What all rules share."""

    weight: FiniteFloat = 1.0
    name: str = ""
    """What the rule's own score is called in the metrics; empty is its kind."""

    def score(self, sample: SampleText) -> float:
        """From 0 to 1, before weighting. Raises CannotJudge."""
        raise NotImplementedError


class RegexRule(BaseRule):
    """1 where the pattern is found, else 0. Rows on which it takes longer than `timeout_s` are rejected."""

    kind: Literal["regex"] = "regex"
    pattern: str
    """Python's syntax; `(?s)`, `(?m)` and `(?i)` at its start set flags."""
    on: Literal["response", "prompt"] = "response"
    timeout_s: PositiveFloat = 1.0
    """For one row. Some patterns, such as `(a+)+$`, need exponential time on some texts."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
            regex.compile(pattern)
        except (re.error, regex.error) as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    def score(self, sample: SampleText) -> float:
        text = sample.response if self.on == "response" else sample.prompt
        try:  # unlike `re`, it can be stopped, and holds no lock meanwhile
            found = regex.search(self.pattern, text, timeout=self.timeout_s, concurrent=True)
        except TimeoutError:
            raise CannotJudge(
                f"the pattern of rule {self.name or self.kind!r} took over {self.timeout_s:g} s"
            ) from None
        return float(found is not None)


class ExactRule(BaseRule):
    """1 where the response equals the gold answer, else 0. Rows without a gold answer are rejected."""

    kind: Literal["exact"] = "exact"
    normalize: bool = True
    """Compare without regard to case, width of characters (NFKC) and amount of white space."""

    def score(self, sample: SampleText) -> float:
        if sample.gold_answer is None:
            raise CannotJudge(NO_GOLD_ANSWER)
        return float(self._normal(sample.response) == self._normal(sample.gold_answer))

    def _normal(self, text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split()) if self.normalize else text


class NumericRule(BaseRule):
    """1 where the response's final number is the gold answer's, else 0. Rows whose gold answer has none are rejected.

    `$1,080` is 1080, `12.0` is 12, `50%` is 50; fractions are two numbers.
    """

    kind: Literal["numeric"] = "numeric"
    after: str | None = None
    r"""Text before the final number, such as `####` or `\boxed{`: the first number after its last occurrence counts,
    and a response without it gets 0. Null takes the last number. In a gold answer the marker may be missing."""
    tolerance: NonNegativeFloat = 0.0
    """Largest difference of numbers that are called equal."""

    def score(self, sample: SampleText) -> float:
        if sample.gold_answer is None:
            raise CannotJudge(NO_GOLD_ANSWER)
        wanted = final_number(sample.gold_answer, self.after, needs_marker=False)
        if wanted is None:
            raise CannotJudge("the row's gold answer has no number")
        found = final_number(sample.response, self.after, needs_marker=True)
        return float(found is not None and is_near(found, wanted, self.tolerance))


class LengthRule(BaseRule):
    """1 from `min` to `max` characters, falling in a straight line to 0 at `falloff` characters outside."""

    kind: Literal["length"] = "length"
    min: NonNegativeInt = 0
    max: PositiveInt
    falloff: NonNegativeInt = 0
    """0 is a step."""

    @model_validator(mode="after")
    def _is_a_range(self) -> LengthRule:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}: swap them")
        return self

    def score(self, sample: SampleText) -> float:
        length = len(sample.response)
        outside = max(self.min - length, length - self.max, 0)
        if not outside:
            return 1.0
        return max(0.0, 1 - outside / self.falloff) if self.falloff else 0.0


class FormatRule(BaseRule):
    r"""1 where the whole response has the format, else 0.

    `think`: `<think>…</think>` once, then an answer. `think_answer`: that, with the answer in `<answer>…</answer>` and
    nothing after it. `boxed`: `\boxed{…}` in the last line. `hashes`: ends with its only `#### …`, as GSM8K's do.
    """

    kind: Literal["format"] = "format"
    format: Literal["think", "think_answer", "boxed", "hashes"]

    def score(self, sample: SampleText) -> float:
        return float(bool(FORMATS[self.format](sample.response.strip())))


Rule = Annotated[RegexRule | ExactRule | NumericRule | LengthRule | FormatRule, Field(discriminator="kind")]


class RulesReward(TextReward):
    """Σ weight · score over the rules."""

    kind: Literal["rules"] = "rules"
    rules: list[Rule] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> RulesReward:
        check_names_differ(self.part_names)
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        return tuple(rule.name or rule.kind for rule in self.rules)

    @property
    def needs_gold_answers(self) -> bool:
        return any(isinstance(rule, ExactRule | NumericRule) for rule in self.rules)

    def start(self, columns: Sequence[str] = ()) -> RulesJudge:
        return RulesJudge(self)


class RulesJudge(TextJudge):
    """Applies the rules."""

    def __init__(self, config: RulesReward) -> None:
        super().__init__(Callers(self.judge, num_callers=1, max_rows=ROWS_AT_ONCE))
        self._config = config

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        return [self._judge_one(sample) for sample in samples]

    def _judge_one(self, sample: SampleText) -> Score:
        rules = self._config.rules
        try:
            scores = [rule.score(sample) for rule in rules]
        except CannotJudge as error:
            return Score(None, str(error))
        total = sum(rule.weight * score for rule, score in zip(rules, scores, strict=True))
        return Score(total, parts=dict(zip(self._config.part_names, scores, strict=True)))
