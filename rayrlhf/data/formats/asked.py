"""What several formats ask with: an instruction with its input, after a system message and earlier turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field, model_validator

from rayrlhf.data.formats.base import EmptyCell, FromCell, Row, Score, Truth, first_of, is_label
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.pairing import known_margin
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Message, Origin, PromptText, Role
from rayrlhf.data.ingest.rules import RowRules

NOT_CARRIED = {
    "tools": "tools",
    "functions": "tools",
    "images": "content that is not text",
    "image": "content that is not text",
    "videos": "content that is not text",
    "audios": "content that is not text",
    "audio": "content that is not text",
}
"""Columns that change what is asked and that records do not hold: a row that has something in one is rejected."""
NAMES = frozenset(NOT_CARRIED)
NOTHING: tuple[Any, ...] = (None, "", "[]", "{}", [], {})
QUESTIONS = ("prompt", "instruction", "question", "query", "problem", "input")
"""Names of the column that asks; `input` asks only where none of the others does."""
ANSWERS = ("completion", "response", "output", "solution", "answer")
"""Names of the column that answers."""
LABELS = ("label", "kto_tag", "is_safe")
"""Names of the column that says whether an answer is good."""

Exchange = Annotated[list[str], Field(min_length=2, max_length=2)]
"""An earlier question and its answer."""
Optional = Annotated[Score | None, EmptyCell]
"""A score that may be left out."""


class Conversed(Row):
    """A row whose prompt may come after a system message and, as LLaMA-Factory writes them, earlier turns."""

    system: str | None = Field(None, validation_alias=AliasChoices("system", "system_prompt"))
    history: Annotated[list[Exchange] | None, EmptyCell, FromCell] = None

    @model_validator(mode="before")
    @classmethod
    def _loses_nothing(cls, value: Any) -> Any:
        if isinstance(value, dict) and not NAMES.isdisjoint(value):
            for name in NAMES & value.keys():
                if value[name] not in NOTHING:
                    raise Rejected(
                        NOT_CARRIED[name],
                        f"the row has {name!r}, which prompts do not hold: columns={{{name}: ''}} trains without them",
                    )
        return value

    def after_all(self, prompt: PromptText) -> PromptText:
        """`prompt` after the row's system message and earlier turns. Raises Rejected for two system messages."""
        if not self.system and not self.history:
            return prompt
        first, *others = messages = list(prompt.messages)
        system = [Message("system", self.system)] if self.system else []
        if first.role == "system" and system:
            if first != system[0]:
                raise Rejected("two system messages", "the column `system` and the first message differ")
            messages = others
        roles: tuple[Role, Role] = ("user", "assistant")
        turns = [Message(role, said) for pair in self.history or () for role, said in zip(roles, pair, strict=True)]
        return PromptText((*system, *turns, *messages), prompt.context)


class Instructed(Conversed):
    """A row that asks with an instruction, in a column of any usual name, and maybe an input to it."""

    prompt: str = Field(validation_alias=AliasChoices(*QUESTIONS))
    input: str | None = Field(None, validation_alias=AliasChoices("input", "context"))

    @model_validator(mode="before")
    @classmethod
    def _input_alone_asks(cls, value: Any) -> Any:
        if isinstance(value, dict) and "input" in value and value.keys().isdisjoint(QUESTIONS[:-1]):
            value = {**value, "prompt": value["input"]}
            del value["input"]
        return value

    def prompt_text(self) -> PromptText:
        return self.after_all(PromptText.of(self.prompt, self.input))


class Labeled(Row):
    """A row with one answer that somebody found good or bad."""

    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    label: Truth = Field(validation_alias=AliasChoices(*LABELS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        """Some data name a topic in `label`."""
        return not cls.missing(value) and is_label(first_of(value, LABELS))

    def answered(self) -> tuple[PromptText, str]:
        """The prompt and the answer."""
        raise NotImplementedError

    def prompt_text(self) -> PromptText:
        return self.answered()[0]

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(*self.answered(), self.label, origin=origin)]


class ScoredSides(Row):
    """A row with a chosen and a rejected answer, which may say how good each is, or by how much one is better."""

    score_chosen: Optional = Field(
        None,
        validation_alias=AliasChoices(
            "score_chosen",
            "chosen_score",
            "chosen_rating",
            "chosen-rating",
            "chosen_avg_rating",
            "rating_chosen",
        ),
    )
    score_rejected: Optional = Field(
        None,
        validation_alias=AliasChoices(
            "score_rejected",
            "rejected_score",
            "rejected_rating",
            "rejected-rating",
            "rejected_avg_rating",
            "rating_rejected",
        ),
    )
    margin: Optional = None

    def margin_of(self, rules: RowRules) -> float:
        """The margin of the pair, 0 if it is not known. Raises Rejected if it is negative or too small."""
        if self.margin is not None:
            return known_margin(self.margin, 0.0, rules)
        return known_margin(self.score_chosen, self.score_rejected, rules)
