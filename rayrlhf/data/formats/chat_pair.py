"""Pairs of chats: `{prompt or messages, chosen, rejected}` where any may be messages, or two whole dialogues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from rayrlhf.data.files.json_lines import parse
from rayrlhf.data.formats.asked import Conversed, ScoredSides
from rayrlhf.data.formats.base import Turn, Turns, first_of
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Kind, Message, Origin, Preference, PromptText, visible
from rayrlhf.data.ingest.rules import RowRules


def _from_cell(value: Any) -> Any:
    """The messages that a CSV cell holds as JSON, or one message alone; any other text stays as it is."""
    if isinstance(value, dict) and is_turn(value):
        return [value]
    if isinstance(value, str) and MESSAGES.match(value):
        found = parse(value)
        if isinstance(found, list) and all(map(is_turn, found)):
            return found
    return value


def is_turn(value: Any) -> bool:
    """Whether a value looks like a message."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def holds_messages(value: Any) -> bool:
    """Whether a column holds messages, not text."""
    found = _from_cell(value)
    return isinstance(found, list) and all(map(is_turn, found))


MESSAGES = re.compile(r'\s*\[\s*\{\s*"')
MessagesCell = BeforeValidator(_from_cell)
Said = Annotated[str | list[Turn], MessagesCell]
PROMPTS = ("prompt", "instruction", "question")
CHATS = ("messages", "conversations", "conversation")


class ChatPair(Conversed, ScoredSides):
    name: ClassVar[str] = "chat_pair"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    prompt: Said | None = Field(None, validation_alias=AliasChoices(*PROMPTS))
    messages: Annotated[list[Turn] | None, Turns] = Field(None, validation_alias=AliasChoices(*CHATS))
    chosen: Said
    rejected: Said

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        if cls.missing(value):
            return False
        said = (first_of(value, PROMPTS), value["chosen"], value["rejected"])
        return first_of(value, CHATS) is not None or any(map(holds_messages, said))

    def prompt_text(self) -> PromptText:
        return self._pair()[0]

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        return [Preference(*self._pair(), self.margin_of(rules), origin=origin)]

    def _pair(self) -> tuple[PromptText, str, str]:
        given = self.prompt if self.prompt is not None else self.messages
        before = messages_of(given, "user") if given is not None else ()
        sides = (_after(before, messages_of(side, "assistant")) for side in (self.chosen, self.rejected))
        prompt, chosen, rejected = common_prompt(*sides)
        return self.after_all(prompt), chosen, rejected


def common_prompt(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[PromptText, str, str]:
    """(prompt, chosen, rejected) of two dialogues that differ only in their last answer. Raises Rejected otherwise."""
    prompt, better = split_answer(chosen)
    other, worse = split_answer(rejected)
    if prompt != other:
        raise Rejected("dialogues differ before the last answer")
    return prompt, better, worse


def split_answer(messages: tuple[Message, ...]) -> tuple[PromptText, str]:
    """(prompt, last answer) of a dialogue. Raises Rejected if it does not end with the assistant."""
    if not messages or messages[-1].role != "assistant":
        raise Rejected("no answer at the end", "the last turn is not by the assistant")
    return PromptText(messages[:-1]), messages[-1].content


def messages_of(said: str | list[Turn], role: Literal["user", "assistant"]) -> tuple[Message, ...]:
    """Messages as they are; a text as one of `role`."""
    return (Message(role, said),) if isinstance(said, str) else tuple(turn.message() for turn in said)


def _after(before: tuple[Message, ...], side: tuple[Message, ...]) -> tuple[Message, ...]:
    """A side that repeats the prompt is the whole dialogue; one that begins with an answer continues the prompt."""
    if not before or not side or side[0].role == "assistant":
        return side if side[: len(before)] == before else before + side
    ours, theirs = _spoken(before), _spoken(side)
    if any(theirs[at : at + len(ours)] == ours for at in range(len(side))):
        return side
    raise Rejected("malformed row", "a dialogue must repeat its prompt or continue it with an answer")


def _spoken(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, visible(message.content)) for message in messages]
