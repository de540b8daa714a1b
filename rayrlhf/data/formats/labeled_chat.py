"""Unpaired feedback on chats: `{messages or conversations, label or kto_tag}` (TRL, LLaMA-Factory); the label is of the
last turn. Turns may be `{from, value}`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BeforeValidator, Field

from rayrlhf.data.formats.base import FromCell, Row, Truth, Turn, is_truth_value
from rayrlhf.data.formats.chat_pair import messages_of, split_answer
from rayrlhf.data.ingest.records import Kind, LabeledAnswer, Origin, PromptText
from rayrlhf.data.ingest.rules import RowRules

CHATS, LABELS = ("messages", "conversations"), ("label", "kto_tag")


def _role_and_content(turns: Any) -> Any:
    """Turns `{from, value}` under the names of others."""
    names = {"from": "role", "value": "content"}
    if not isinstance(turns, list):
        return turns
    return [{names.get(k, k): v for k, v in turn.items()} if isinstance(turn, dict) else turn for turn in turns]


class LabeledChat(Row):
    name: ClassVar[str] = "labeled_chat"
    gives: ClassVar[tuple[Kind, ...]] = ("labeled_answers", "prompts")
    messages: Annotated[
        list[Turn], BeforeValidator(_role_and_content), FromCell, Field(validation_alias=AliasChoices(*CHATS))
    ]
    label: Annotated[Truth, Field(validation_alias=AliasChoices(*LABELS))]

    @classmethod
    def recognizes(cls, value: dict[str, Any]) -> bool:
        return not cls.missing(value) and any(is_truth_value(value.get(name)) for name in LABELS)

    @classmethod
    def missing(cls, value: dict[str, Any]) -> list[str]:
        return [names[0] for names in (CHATS, LABELS) if not any(name in value for name in names)]

    def prompt_text(self) -> PromptText:
        return split_answer(messages_of(self.messages, "assistant"))[0]

    def labeled_answers(self, origin: Origin, rules: RowRules) -> list[LabeledAnswer]:
        return [LabeledAnswer(*split_answer(messages_of(self.messages, "assistant")), self.label, origin=origin)]
