"""What a data file's row means, whatever its schema: a prompt, an answer to it, or a preference between two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
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
    def is_empty(self) -> bool:
        return not self.messages or not visible(self.messages[-1].content)


@dataclass(frozen=True)
class Answer:
    """A prompt with the answer to imitate (SFT)."""

    prompt: PromptText
    text: str


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer (reward model)."""

    prompt: PromptText
    chosen: str
    rejected: str


def visible(text: str) -> str:
    """`text` without surrounding white space and zero-width characters: empty if there is nothing to read."""
    return text.strip(" \t\r\n\u200b\u200c\u200d\u2060\ufeff\xa0")


def without_end_marker(text: str) -> str:
    """`text` without a final `<|endoftext|>`: the suffix, not the characters it is made of."""
    return text.removesuffix("<|endoftext|>")
