"""A template turns a prompt into the tokens that the model reads before it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText


class BaseTemplate(Config):
    """What all templates share: text first, then tokens, many prompts at a time."""

    adds_special_tokens: ClassVar[bool]
    """Whether the tokenizer puts its beginning-of-sequence token before the text, or the text has it already."""

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        """The prompt as text, up to where the answer begins."""
        raise NotImplementedError

    def encode_batch(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[list[int]]:
        """Token ids of each prompt."""
        texts = [self.as_text(prompt, tokenizer) for prompt in prompts]
        rows = encode_texts(texts, tokenizer, self.adds_special_tokens)
        if self.adds_special_tokens:
            # Some tokenizers end every text with eos; a prompt goes on.
            rows = [ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids for ids in rows]
        return rows

    def encode(self, prompt: PromptText, tokenizer: Any) -> list[int]:
        """Token ids of one prompt."""
        return self.encode_batch([prompt], tokenizer)[0]


class TextTemplate(BaseTemplate):
    """A template that is a text around one user message."""

    adds_special_tokens: ClassVar[bool] = True

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        return self.render(prompt)

    def render(self, prompt: PromptText) -> str:
        """The prompt as text; these templates need no tokenizer for it."""
        raise NotImplementedError

    def single_message(self, prompt: PromptText) -> str:
        """The one user message. Raises Rejected for a conversation, which needs the `chat` template."""
        if len(prompt.messages) != 1:
            raise Rejected(
                "refused by the template",
                f"{type(self).__name__} takes one message, this prompt has {len(prompt.messages)}: "
                "set template.kind=chat for conversations",
            )
        return prompt.messages[0].content


def encode_texts(texts: Sequence[str], tokenizer: Any, add_special_tokens: bool) -> list[list[int]]:
    """Token ids of each text. The batch runs on all cores, outside Python's lock."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):  # a tokenizer written in Python
        return list(tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids) if texts else []
    backend.no_truncation()
    backend.no_padding()
    return [row.ids for row in backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)]
