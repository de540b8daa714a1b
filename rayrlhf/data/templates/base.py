"""A template turns a prompt into the token ids that the model continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.special_tokens import (
    REASON,
    InText,
    Marked,
    SpecialTokens,
    backend_of,
    special_tokens_of,
    without_limits,
)

FIX = "special_tokens_in_text=split takes it as plain text"


class BaseTemplate(Config):
    """Base of all templates: prompt → text → token ids, in batches."""

    adds_special_tokens: ClassVar[bool]
    """Whether the tokenizer adds its beginning-of-sequence token; False if the text already has it."""

    def as_text(self, prompt: PromptText, tokenizer: Any) -> str:
        """The prompt as text, up to where the answer begins."""
        raise NotImplementedError

    def special_tokens(self, tokenizer: Any) -> SpecialTokens:
        """The control tokens of the model."""
        own = getattr(tokenizer, "chat_template", None)
        return special_tokens_of(tokenizer, *([own] if isinstance(own, str) else []))

    def encode_batch(
        self, prompts: Sequence[PromptText], tokenizer: Any, in_text: InText = "split"
    ) -> list[list[int] | Rejected]:
        """Token ids of each prompt, or why there are none. in_text: what becomes of special tokens in messages."""
        texts = self._texts(prompts, tokenizer, in_text)
        ids = iter(encode_texts([text for text in texts if isinstance(text, str)], tokenizer, self.adds_special_tokens))
        marked = [text for text in texts if isinstance(text, Marked)]
        framed = iter(self.special_tokens(tokenizer).framed_ids(marked, self.adds_special_tokens) if marked else [])
        rows: list[list[int] | Rejected] = []
        for text in texts:
            row = text if isinstance(text, Rejected) else next(framed if isinstance(text, Marked) else ids)
            if self.adds_special_tokens and isinstance(row, list) and row and row[-1] == tokenizer.eos_token_id:
                row = row[:-1]  # some tokenizers append eos to every text; a prompt must not end
            rows.append(row)
        return rows

    def encode(self, prompt: PromptText, tokenizer: Any, in_text: InText = "split") -> list[int]:
        """Token ids of one prompt. Raises Rejected."""
        (row,) = self.encode_batch([prompt], tokenizer, in_text)
        if isinstance(row, Rejected):
            raise row
        return row

    def _texts(self, prompts: Sequence[PromptText], tokenizer: Any, in_text: InText) -> list[str | Marked | Rejected]:
        """Each prompt as text; with marks if there may be special tokens in it that are not the template's."""
        special = self.special_tokens(tokenizer)
        frames: dict[tuple[Any, ...], int | None] = {}
        texts: list[str | Marked | Rejected] = []
        for prompt in prompts:
            try:
                text = self.as_text(prompt, tokenizer)
                if in_text != "allow":
                    spelled = special.find(prompt.texts)
                    if spelled and in_text == "reject":
                        raise Rejected(REASON, f"{spelled!r}; {FIX}")
                    if spelled or special.count(text) != self._count_own(prompt, tokenizer, frames):
                        texts.append(self._marked(prompt, text, tokenizer))
                        continue
                texts.append(text)
            except Rejected as rejection:
                texts.append(rejection)
        return texts

    def _count_own(self, prompt: PromptText, tokenizer: Any, known: dict[tuple[Any, ...], int | None]) -> int | None:
        """Special tokens that the template writes around other messages of the same roles; None if it refuses them."""
        key = (*((message.role, not message.content.strip()) for message in prompt.messages), bool(prompt.context))
        if key not in known:
            try:
                frame = self.as_text(prompt.with_texts(lambda text: "x" if text.strip() else text), tokenizer)
                known[key] = self.special_tokens(tokenizer).count(frame)
            except Rejected:
                known[key] = None
        return known[key]

    def _marked(self, prompt: PromptText, text: str, tokenizer: Any) -> Marked:
        """`text`, which is the prompt's, with marks. Raises Rejected if the template changes it otherwise then."""
        changed, originals = self.special_tokens(tokenizer).mark(prompt, text)
        marked = Marked(self.as_text(changed, tokenizer), originals)
        if marked.plain != text:
            raise Rejected(
                REASON, "the template rewrites the text around them: take them out, or set special_tokens_in_text=allow"
            )
        return marked


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
    """Token ids of each text, special tokens in it included. Batches use all cores, without the GIL."""
    backend = backend_of(tokenizer)
    if backend is None:  # a tokenizer written in Python
        return list(tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids) if texts else []
    encoded = without_limits(backend).encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
    return [row.ids for row in encoded]


def encode_answers(
    texts: Sequence[str], tokenizer: Any, special: SpecialTokens, in_text: InText = "split"
) -> list[list[int] | Rejected]:
    """Token ids of texts without a template, or why there are none. in_text: what becomes of special tokens."""
    spelled = [None if in_text == "allow" else special.find([text]) for text in texts]
    others = [text for text, token in zip(texts, spelled, strict=True) if not token]
    usual = iter(encode_texts(others, tokenizer, add_special_tokens=False))
    if in_text == "reject":
        return [Rejected(REASON, f"{token!r}; {FIX}") if token else next(usual) for token in spelled]
    written = [text for text, token in zip(texts, spelled, strict=True) if token]
    plain = iter(special.plain_ids(written) if written else [])
    return [next(plain if token else usual) for token in spelled]
