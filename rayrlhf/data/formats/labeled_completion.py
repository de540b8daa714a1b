"""Unpaired feedback (TRL's KTO): `{prompt, completion, label}`, texts or messages; a label is true or false."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.asked import Conversed, Labeled
from rayrlhf.data.formats.chat_pair import Said, messages_of, split_answer
from rayrlhf.data.ingest.records import PromptText


class LabeledCompletion(Labeled, Conversed):
    name: ClassVar[str] = "labeled_completion"
    without_label: ClassVar[str] = "prompt_completion or chat_completion"
    prompt: Said
    completion: Said
    input: str | None = None

    def answered(self) -> tuple[PromptText, str]:
        turns = messages_of(self.prompt, "user") + messages_of(self.completion, "assistant")
        prompt, answer = split_answer(turns)
        return self.after_all(PromptText(prompt.messages, self.input or None)), answer
