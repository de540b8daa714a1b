"""kochatgpt's short instruction template."""

from __future__ import annotations

from typing import Literal

from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.base import TextTemplate


class KochatgptTemplate(TextTemplate):
    """`### Instruction(명령어):` … `### Response(응답):`, with nothing after the last colon."""

    kind: Literal["kochatgpt"] = "kochatgpt"

    def render(self, prompt: PromptText) -> str:
        message = self.single_message(prompt)
        if prompt.context:
            message = f"{message}\n{prompt.context}"
        return f"### Instruction(명령어):\n{message}\n\n### Response(응답):"
