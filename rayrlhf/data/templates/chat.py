"""The tokenizer's own chat template."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from jinja2 import TemplateError

from rayrlhf.config import UserError
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.base import BaseTemplate
from rayrlhf.data.templates.special_tokens import SpecialTokens, special_tokens_of


class ChatTemplate(BaseTemplate):
    """Renders conversations in the format that the model was trained on."""

    adds_special_tokens: ClassVar[bool] = False

    kind: Literal["chat"] = "chat"
    system: str | None = None
    """System message for conversations that have none."""
    jinja: str | None = None
    """A chat template to use instead of the tokenizer's own, or where it has none."""

    def special_tokens(self, tokenizer: Any) -> SpecialTokens:
        templates = (self.jinja, tokenizer.chat_template)
        return special_tokens_of(tokenizer, *(jinja for jinja in templates if isinstance(jinja, str)))

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        """The conversation up to where the assistant's answer begins. A context is appended to the last message.

        Raises UserError if there is no chat template, and Rejected if it refuses the conversation, as some do with
        system messages.
        """
        if not (self.jinja or tokenizer.chat_template):
            raise UserError(
                "template.kind=chat, but the tokenizer has no chat template: "
                "set template.jinja, or choose template.kind=kochatgpt, kullm or custom"
            )
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        if prompt.context:
            messages[-1]["content"] += f"\n\n{prompt.context}"
        if self.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=self.jinja, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            name = "template.jinja" if self.jinja else "the tokenizer's chat template"
            raise Rejected("refused by the template", f"{name} cannot render this conversation: {error}") from None
        return str(text)
