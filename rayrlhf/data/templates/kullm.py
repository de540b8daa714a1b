"""The KULLM template, which vaiv trained with."""

from __future__ import annotations

from typing import Literal

from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.base import TextTemplate

OPENING = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
OPENING_WITH_INPUT = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)


class KullmTemplate(TextTemplate):
    """Korean instruction template, with a variant for rows with an input."""

    kind: Literal["kullm"] = "kullm"

    def render(self, prompt: PromptText) -> str:
        message = self.single_message(prompt)
        if prompt.context:
            return f"{OPENING_WITH_INPUT}### 명령어:\n{message}\n\n### 입력:\n{prompt.context}\n\n### 응답:\n"
        return f"{OPENING}### 명령어:\n{message}\n\n### 응답:\n"
