"""Other usual names: `{prompt, response}`, `{prompt, answer}`, Dolly, OpenOrca, MetaMathQA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from rayrlhf.data.formats.asked import ANSWERS, Instructed
from rayrlhf.data.formats.chat_completion import ChatCompletion
from rayrlhf.data.ingest.records import Answer, Kind, Origin
from rayrlhf.data.ingest.rules import RowRules

OTHER_FORMATS = ({"prompt", "completion"}, {"instruction", "output"}, {"question", "answer"})


class PromptResponse(Instructed):
    name: ClassVar[str] = "prompt_response"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    response: str = Field(validation_alias=AliasChoices(*ANSWERS))

    @classmethod
    def recognizes(cls, value: Mapping[str, Any]) -> bool:
        if cls.missing(value) or ChatCompletion.recognizes(value):
            return False
        return not any(names <= value.keys() for names in OTHER_FORMATS)

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        return [Answer(self.prompt_text(), self.response, origin=origin)]
