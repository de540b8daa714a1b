"""What a data file's row means, whatever its schema: a prompt, an answer to it, or a preference between two.

Nothing changes a record once it is made. They are not frozen because a data set has millions, and a frozen dataclass
takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["preferences", "labeled_answers", "answers", "prompts"]
"""What a data set is read for: reward models and DPO, KTO, SFT, or PPO."""
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks; a chat template may refuse some of them."""


@dataclass(slots=True, unsafe_hash=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(slots=True, unsafe_hash=True)
class PromptText:
    """What the model is asked: one user message, or a conversation that ends with one."""

    messages: tuple[Message, ...]
    context: str | None = None
    """The `input` of instruction data: a text that the instruction is about."""

    @staticmethod
    def of(text: str, context: str | None = None) -> PromptText:
        """A prompt of one user message."""
        return PromptText((Message("user", text),), context or None)

    @property
    def key(self) -> str:
        """Equal prompts have equal keys: what keeps one prompt out of two splits."""
        return "\x1e".join([*(f"{m.role}\x1f{m.content}" for m in self.messages), self.context or ""])

    @property
    def opening(self) -> str:
        """The key of the first question: equal for all turns of one conversation."""
        for index, message in enumerate(self.messages):
            if message.role == "user":
                return PromptText(self.messages[: index + 1], self.context).key
        return self.key

    @property
    def texts(self) -> list[str]:
        """What people wrote: each message, and the context."""
        contents = [message.content for message in self.messages]
        return [*contents, self.context] if self.context else contents

    @property
    def text(self) -> str:
        """All that is asked, without roles: what filters, duplicates and languages look at."""
        return "\n".join(self.texts)

    def with_texts(self, change: Callable[[str], str]) -> PromptText:
        """The same conversation with every text changed."""
        messages = tuple(Message(message.role, change(message.content)) for message in self.messages)
        return PromptText(messages, change(self.context) if self.context else None)

    @property
    def is_empty(self) -> bool:
        return not self.messages or not visible(self.messages[-1].content)


@dataclass(slots=True, unsafe_hash=True)
class Origin:
    """Where a record comes from, and what was done to make it."""

    source: str = ""
    """The file or data set, as the user named it."""
    place: int = 0
    """1-based line of a text file, or row of a JSON array or table."""
    unit: Literal["line", "row"] = "line"
    id: str | int | None = None
    """The row's own id, if it has one."""
    siblings: int = 1
    """Records made from the same row; 0 if it was made from several rows."""
    rule: str | None = None
    """How a pair came about: `ranking`, `scores`, `choice`, `ratings`; or the negative's kind if it is synthetic."""
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """What was fixed in the row."""

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.place}"


NOWHERE = Origin()


@dataclass(slots=True, unsafe_hash=True)
class Record:
    """A prompt (PPO); its subclasses add what people wrote to it."""

    prompt: PromptText
    origin: Origin = field(default=NOWHERE, compare=False, kw_only=True)
    columns: str | None = field(default=None, compare=False, kw_only=True)
    """JSON list of the row's values of the columns that were asked for, which no format reads."""

    @property
    def answers(self) -> tuple[str, ...]:
        """() for a prompt, (text,) for an answer, (chosen, rejected) for a preference."""
        return ()

    @property
    def value(self) -> float:
        """What training knows of a record besides its texts: a pair's margin; 1 for a desirable answer, 0 for any
        other."""
        return 0.0

    @property
    def texts(self) -> tuple[str, ...]:
        """All that people wrote."""
        return (*self.prompt.texts, *self.answers)


@dataclass(slots=True, unsafe_hash=True)
class Answer(Record):
    """A prompt with the answer to imitate (SFT)."""

    text: str

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(slots=True, unsafe_hash=True)
class Preference(Record):
    """A prompt with a better and a worse answer (reward model, DPO)."""

    chosen: str
    rejected: str
    margin: float = 0.0
    """By how much the chosen answer was scored higher, where there are two scores; 0 if it is not known."""

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.chosen, self.rejected)

    @property
    def value(self) -> float:
        return self.margin

    @property
    def labeled(self) -> list[LabeledAnswer]:
        """The pair as a good and a bad answer."""
        origin = replace(self.origin, siblings=2 * self.origin.siblings)
        texts = ((self.chosen, True), (self.rejected, False))
        return [LabeledAnswer(self.prompt, text, good, origin=origin, columns=self.columns) for text, good in texts]


@dataclass(slots=True, unsafe_hash=True)
class LabeledAnswer(Record):
    """A prompt with one answer that somebody found good or bad (KTO): never an answer to imitate."""

    text: str
    desirable: bool

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def value(self) -> float:
        return float(self.desirable)


_ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e"
_HANGUL_FILLERS = "\u115f\u1160\u3164\uffa0"
_INVISIBLE = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + _ZERO_WIDTH + _HANGUL_FILLERS


def visible(text: str) -> str:
    """`text` without surrounding white space (any of Unicode's) and characters of no width: empty if there is nothing
    to read."""
    return text.strip(_INVISIBLE)
