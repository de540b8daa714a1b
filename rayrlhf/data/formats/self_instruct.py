"""Self-instruct and its evaluation set: `{instruction, instances: [{input, output}, …]}`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rayrlhf.data.formats.base import FromCell, Row, several
from rayrlhf.data.ingest.records import Answer, Kind, Origin, PromptText, Record
from rayrlhf.data.ingest.rules import RowRules


class Instance(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    input: str | None = None
    output: str


class SelfInstruct(Row):
    name: ClassVar[str] = "self_instruct"
    gives: ClassVar[tuple[Kind, ...]] = ("answers", "prompts")
    instruction: str
    instances: Annotated[list[Instance], FromCell, Field(min_length=1)]

    def prompts(self, origin: Origin, rules: RowRules) -> list[Record]:
        own = several(origin, len(self.instances))
        return [Record(PromptText.of(self.instruction, one.input), origin=own) for one in self.instances]

    def answers(self, origin: Origin, rules: RowRules) -> list[Answer]:
        own = several(origin, len(self.instances))
        return [Answer(PromptText.of(self.instruction, one.input), one.output, origin=own) for one in self.instances]
