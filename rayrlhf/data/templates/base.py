"""A template turns a prompt into the tokens that the model reads before it answers."""

from __future__ import annotations

from typing import Any

from rayrlhf.config import Config, UserError
from rayrlhf.data.records import PromptText


class TextTemplate(Config):
    """A template that is a text around one user message."""

    def render(self, prompt: PromptText) -> str:
        """The prompt as text, up to where the answer begins."""
        raise NotImplementedError(type(self).__name__)

    def encode(self, prompt: PromptText, tokenizer: Any) -> list[int]:
        """Token ids of the rendered prompt, with the tokenizer's beginning-of-sequence token if it has one."""
        ids: list[int] = tokenizer(self.render(prompt)).input_ids
        # Some tokenizers end every text with eos; a prompt goes on.
        return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids

    def single_message(self, prompt: PromptText) -> str:
        """The one user message. Raises UserError for a conversation, which needs the `chat` template."""
        if len(prompt.messages) != 1:
            raise UserError(
                f"template {type(self).__name__} takes one message, this prompt has {len(prompt.messages)}: "
                "set template.kind=chat for conversations"
            )
        return prompt.messages[0].content
