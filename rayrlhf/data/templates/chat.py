"""The tokenizer's own chat template."""

from __future__ import annotations

from typing import Any, Literal

from rayrlhf.config import Config, UserError
from rayrlhf.data.records import PromptText


class ChatTemplate(Config):
    """Renders conversations as the model was trained to read them."""

    kind: Literal["chat"] = "chat"
    system: str | None = None
    """A system message put before every conversation that has none."""

    def encode(self, prompt: PromptText, tokenizer: Any) -> list[int]:
        """Token ids up to where the assistant's answer begins. A context is put below the last message."""
        if not tokenizer.chat_template:
            raise UserError(
                "template.kind=chat, but the tokenizer has no chat template: "
                "choose template.kind=kochatgpt, kullm or custom"
            )
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        if prompt.context:
            messages[-1]["content"] += f"\n\n{prompt.context}"
        if self.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.system})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False).input_ids)
