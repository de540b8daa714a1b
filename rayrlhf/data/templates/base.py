"""A template turns a prompt into the token ids that the model continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText


class BaseTemplate(Config):
    """Base of all templates: prompt → text → token ids, in batches."""

    adds_special_tokens: ClassVar[bool]
    """Whether the tokenizer adds its beginning-of-sequence token; False if the text already has it."""

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        """The prompt as text, up to where the answer begins."""
        raise NotImplementedError

    def encode_batch(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[list[int]]:
        """Token ids of each prompt."""
        texts = [self.as_text(prompt, tokenizer) for prompt in prompts]
        rows = encode_texts(texts, tokenizer, self.adds_special_tokens)
        if self.adds_special_tokens:
            # Some tokenizers append eos to every text; a prompt must not end.
            rows = [ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids for ids in rows]
        return rows

    def encode(self, prompt: PromptText, tokenizer: Any) -> list[int]:
        """Token ids of one prompt."""
        return self.encode_batch([prompt], tokenizer)[0]


class TextTemplate(BaseTemplate):
    """A template that wraps text around one user message."""

    adds_special_tokens: ClassVar[bool] = True

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        return self.render(prompt)

    def render(self, prompt: PromptText) -> str:
        """The prompt as text; needs no tokenizer."""
        raise NotImplementedError

    def single_message(self, prompt: PromptText) -> str:
        """The single user message. Raises Rejected for conversations, which need the `chat` template."""
        if len(prompt.messages) != 1:
            raise Rejected(
                "refused by the template",
                f"{type(self).__name__} takes one message, this prompt has {len(prompt.messages)}: "
                "set template.kind=chat for conversations",
            )
        return prompt.messages[0].content


def encode_texts(texts: Sequence[str], tokenizer: Any, add_special_tokens: bool) -> list[list[int]]:
    """Token ids of each text. Batches use all cores, without the GIL."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):  # a tokenizer written in Python
        return list(tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids) if texts else []
    backend.no_truncation()
    backend.no_padding()
    return [row.ids for row in backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)]
