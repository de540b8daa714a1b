"""HelpSteer, HelpSteer2: `{prompt, response, helpfulness, correctness, coherence, complexity, verbosity}`."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from rayrlhf.data.formats.base import Score
from rayrlhf.data.formats.rated_group import RatedRow
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.records import Kind, Message, PromptText
from rayrlhf.data.ingest.rules import RowRules

TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
"""What separates the turns of a prompt; the first one, by the user, has no mark."""
ROLES: dict[str, Literal["user", "assistant"]] = {"User": "user", "Assistant": "assistant"}
SCORES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


class HelpSteer(RatedRow):
    name: ClassVar[str] = "helpsteer"
    gives: ClassVar[tuple[Kind, ...]] = ("preferences", "prompts")
    advice: ClassVar[str] = "they are single answers, good and bad, compared by rules.score (helpfulness by default)"
    prompt: str
    response: str
    helpfulness: Score
    correctness: Score | None = None
    coherence: Score | None = None
    complexity: Score | None = None
    verbosity: Score | None = None

    def group_key(self) -> str:
        return self.prompt

    def prompt_text(self) -> PromptText:
        return helpsteer_prompt(self.prompt)

    def answer(self) -> str:
        return self.response

    def rating(self, rules: RowRules) -> float:
        name = rules.score or "helpfulness"
        found: float | None = getattr(self, name) if name in SCORES else None
        if found is None:
            raise DataError(f"rules.score: a row has no {name!r}; HelpSteer's scores are {', '.join(SCORES)}")
        return found


def helpsteer_prompt(text: str) -> PromptText:
    """The conversation that a prompt of several turns holds."""
    first, *others = TURN.split(text)
    turns = zip(others[::2], others[1::2], strict=True)
    return PromptText((Message("user", first), *(Message(ROLES[speaker], said) for speaker, said in turns)))
