"""A user-defined template, from YAML."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.base import TextTemplate


class CustomTemplate(TextTemplate):
    """`text` with `{prompt}` where the message goes; `text_with_input`, with `{input}` too, for rows that have one."""

    kind: Literal["custom"] = "custom"
    text: str
    text_with_input: str | None = None

    @field_validator("text")
    @classmethod
    def _has_prompt(cls, text: str) -> str:
        if "{prompt}" not in text:
            raise ValueError("put {prompt} where the prompt goes")
        return text

    @field_validator("text_with_input")
    @classmethod
    def _has_prompt_and_input(cls, text: str | None) -> str | None:
        if text is not None and not ("{prompt}" in text and "{input}" in text):
            raise ValueError("put {prompt} and {input} where they go")
        return text

    def render(self, prompt: PromptText) -> str:
        message = self.single_message(prompt)
        if prompt.context and self.text_with_input:
            values = {"{prompt}": message, "{input}": prompt.context}
            return re.sub(r"\{prompt\}|\{input\}", lambda place: values[place[0]], self.text_with_input)
        if prompt.context:
            message = f"{message}\n{prompt.context}"
        return self.text.replace("{prompt}", message)
