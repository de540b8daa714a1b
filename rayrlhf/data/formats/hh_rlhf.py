"""hh-rlhf: `{chosen, rejected}`, two dialogues in one string each that differ in the last answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from rayrlhf.data.formats.asked import ScoredSides
from rayrlhf.data.formats.chat_pair import common_prompt, split_answer
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Kind, Message, Origin, Preference, PromptText
from rayrlhf.data.ingest.rules import RowRules

SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
OPEN = re.compile(r"\n\nAssistant:\s*\Z")
ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}


class HhRlhf(ScoredSides):
    name: ClassVar[str] = "hh_rlhf"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "answers", "prompts")
    chosen: str
    rejected: str

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        sides = [value.get("chosen"), value.get("rejected")]
        return "prompt" not in value and all(isinstance(side, str) and SPEAKER.match(side) for side in sides)

    def prompt_text(self) -> PromptText:
        return split_answer(dialogue(self.chosen))[0]

    def preferences(self, origin: Origin, rules: RowRules) -> list[Preference]:
        prompt, chosen, rejected = common_prompt(dialogue(self.chosen), dialogue(self.rejected))
        return [Preference(prompt, chosen, rejected, self.margin_of(rules), origin=origin)]


def is_open(value: Any) -> bool:
    """Whether a value is a dialogue whose next turn is the assistant's."""
    return isinstance(value, str) and bool(SPEAKER.match(value) and OPEN.search(value))


def asked_in(text: str) -> PromptText:
    """What a dialogue asks: all turns before the one that is still empty. Raises Rejected if it begins otherwise."""
    turns = dialogue(text)
    return PromptText(turns[:-1] if is_open(text) else turns)


def dialogue(text: str) -> tuple[Message, ...]:
    """The turns of a dialogue. Raises Rejected if it does not begin with a speaker."""
    parts = SPEAKER.split(text)
    if parts[0].strip():
        raise Rejected("malformed row", "the dialogue does not begin with Human: or Assistant:")
    return tuple(Message(ROLES[speaker], said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True))
