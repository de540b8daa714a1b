"""Special tokens in people's text: `<|assistant|>` that someone typed is text, the template's own is a control token.

    text spells none, as it usually does  → the tokenizer reads it as it is
    an answer does                        → a copy of the tokenizer reads it, which has other names for control tokens
    a prompt does                         → the same, after the template's own tokens were given these names

The template's own are those that the tokenizer finds in a prompt while each special token of its messages is hidden
behind one private-use character: a template may trim, split or repeat messages, but cannot take a character apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, TypeAlias

from jinja2 import TemplateError

from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates.renamed import Renamed

InText: TypeAlias = Literal["split", "reject", "allow"]
"""Special tokens in people's text become plain text, a reason to reject the row, or control tokens."""
REASON = "special tokens in the text"
PYTHON = (
    "this tokenizer is written in Python and takes them as control tokens wherever they stand: take them out, or set "
    "special_tokens_in_text=allow"
)
PRIVATE_USE = range(0x100002, 0x10FFFE)
TURNS = tuple({"role": role, "content": "x"} for role in ("user", "assistant", "user"))
BRACKETED = re.compile(r"▁?[<\[].*\w.*[>\]]")


@dataclass(frozen=True)
class Marked:
    """A prompt as its template renders it, with marks in what people wrote."""

    text: str
    originals: dict[int, str]
    """What stands behind each mark, by its code point."""

    @property
    def plain(self) -> str:
        return self.text.translate(self.originals)


class SpecialTokens:
    """A tokenizer's control tokens, and text that spells them."""

    def __init__(self, tokenizer: Any, chat_templates: Iterable[str] = ()) -> None:
        self._backend = backend_of(tokenizer)
        self._names = _control_tokens(tokenizer, self._backend, chat_templates)
        spellings = set(self._names.values())
        normalizer = self._backend.normalizer if self._backend is not None else None
        self._normalizer = normalizer if normalizer is not None and self._shows_tokens(normalizer) else None
        if self._normalizer is not None:
            spellings |= {self._normalizer.normalize_str(name) for name in spellings}
        self._first_letters = {name[:1] for name in spellings}
        self._pattern = re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))) or "(?!)")

    def find(self, texts: Iterable[str]) -> str | None:
        """The first special token that one of the texts spells."""
        for text in texts:
            for form in (text,) if self._normalizer is None else (text, self._normalizer.normalize_str(text)):
                if any(letter in form for letter in self._first_letters) and (match := self._pattern.search(form)):
                    return match[0]
        return None

    def count(self, text: str) -> int:
        """How many special tokens the text spells."""
        return len(self._pattern.findall(text))

    def mark(self, prompt: PromptText, rendered: str) -> tuple[PromptText, dict[int, str]]:
        """The prompt with marks that are not in `rendered`, and what stands behind them.

        One mark stands for each special token. Another, which stands for nothing, is where a text begins and ends:
        people's text and the template's spell no token together.
        """
        taken = set(chain(rendered, *prompt.texts))
        free = (mark for mark in map(chr, PRIVATE_USE) if mark not in taken)
        border = next(free)
        marks: dict[str, str] = {}

        def marked(text: str) -> str:
            core = text.strip()
            if not core:
                return text
            pieces, end = [border], 0
            for span in self._spans(core):
                spelled = core[slice(*span)]
                if spelled not in marks:
                    marks[spelled] = next(free)
                pieces += [core[end : span[0]], marks[spelled]]
                end = span[1]
            return text.replace(core, "".join((*pieces, core[end:], border)))

        changed = prompt.with_texts(marked)
        return changed, {ord(border): "", **{ord(mark): spelled for spelled, mark in marks.items()}}

    def framed_ids(self, prompts: Sequence[Marked], add_special_tokens: bool) -> list[list[int] | Rejected]:
        """Token ids of prompts: the template's own special tokens, and no others, are control tokens."""
        if self._renamed is None:
            return [Rejected(REASON, PYTHON)] * len(prompts)
        texts, wanted = [], []
        for prompt in prompts:
            pieces, at, ids = [], 0, []
            for token_id, start, end in self._found(prompt.text):
                pieces += [prompt.text[at:start].translate(prompt.originals), self._renamed.names[token_id]]
                ids.append(token_id)
                at = end
            texts.append("".join([*pieces, prompt.text[at:].translate(prompt.originals)]))
            wanted.append(ids)
        return self._ids(self._renamed, texts, wanted, add_special_tokens)

    def plain_ids(self, texts: Sequence[str]) -> list[list[int] | Rejected]:
        """Token ids of texts of which nothing is a control token."""
        if self._renamed is None:
            return [Rejected(REASON, PYTHON)] * len(texts)
        return self._ids(self._renamed, texts, [[]] * len(texts), add_special_tokens=False)

    def _ids(
        self, renamed: Renamed, texts: Sequence[str], wanted: Sequence[list[int]], add_special_tokens: bool
    ) -> list[list[int] | Rejected]:
        """wanted: the control tokens that each text must have, in their order."""
        rows: list[list[int] | Rejected] = []
        counted = self._names.keys() - {renamed.unknown_id}
        encodings = renamed.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        for encoding, tokens in zip(encodings, wanted, strict=True):
            pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            control = [token_id for token_id, was_added in pairs if token_id in counted and not was_added]
            is_right = control == [token_id for token_id in tokens if token_id in counted]
            rows.append(encoding.ids if is_right else Rejected(REASON, "the tokenizer cannot take them as plain text"))
        return rows

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the text spells special tokens, in order."""
        spans = [match.span() for match in self._pattern.finditer(text)]
        if self._normalizer is not None:
            spans += [(start, end) for _, start, end in self._found(text)]
        merged: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if merged and start < merged[-1][1]:
                start, end = merged[-1][0], max(end, merged.pop()[1])
            merged.append((start, end))
        return merged

    def _found(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(id, start, end) of each control token that the tokenizer itself finds in the text, without the white space
        that some of them take in."""
        encoding = without_limits(self._backend).encode(text, add_special_tokens=False)
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            found = text[start:end]
            if token_id in self._names and self._is_spelled(self._names[token_id], found):
                yield token_id, end - len(found.lstrip()), start + len(found.rstrip())

    def _is_spelled(self, name: str, text: str) -> bool:
        """Whether `text` is a special token, and no character that the tokenizer does not know."""
        normalizer = self._backend.normalizer
        return name in text or (
            normalizer is not None and normalizer.normalize_str(name) in normalizer.normalize_str(text)
        )

    def _shows_tokens(self, normalizer: Any) -> bool:
        """Whether normalizing may turn other text into a control token."""
        tokens = self._backend.get_added_tokens_decoder()
        split = self._backend.pre_tokenizer
        for token_id, name in self._names.items():
            text = normalizer.normalize_str(name)
            words = [word for word, _ in split.pre_tokenize_str(text)] if split is not None else [text]
            if tokens[token_id].normalized or any(
                token.id == token_id for word in words for token in self._backend.model.tokenize(word)
            ):
                return True
        return False

    @cached_property
    def _renamed(self) -> Renamed | None:
        """None for a tokenizer written in Python."""
        return None if self._backend is None else Renamed.of(self._backend, self._names.keys())


@lru_cache(maxsize=8)
def special_tokens_of(tokenizer: Any, *chat_templates: str) -> SpecialTokens:
    """The control tokens of a tokenizer whose prompts these chat templates render."""
    return SpecialTokens(tokenizer, chat_templates)


def backend_of(tokenizer: Any) -> Any:
    """The tokenizer in Rust, or None for one written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend if hasattr(backend, "encode_batch_fast") else None


def without_limits(backend: Any) -> Any:
    """The same tokenizer, without the length that its file may set."""
    backend.no_truncation()
    backend.no_padding()
    return backend


def _control_tokens(tokenizer: Any, backend: Any, chat_templates: Iterable[str]) -> dict[int, str]:
    """Control tokens by id: those with a role, such as eos, and what is in brackets if the tokenizer calls it special
    or a chat template marks turns with it.

    People mean the others that they write: smileys, which KoGPT2 calls special, and tags such as `<think>`.
    """
    if backend is not None:
        added = backend.get_added_tokens_decoder()
    else:
        added = getattr(tokenizer, "added_tokens_decoder", {})
    named = set(getattr(tokenizer, "all_special_tokens", ()))
    names = {token.content for token in added.values()}
    tags = {name for name in names if f"</{name[1:]}" in names or name.startswith("</")}
    frames = "".join(_turns(tokenizer, jinja) for jinja in chat_templates) if len(names) > len(named) else ""
    return {
        token_id: token.content
        for token_id, token in added.items()
        if token.content in named
        or (
            BRACKETED.fullmatch(token.content)
            and (token.special or (token.content in frames and token.content not in tags))
        )
    }


def _turns(tokenizer: Any, jinja: str) -> str:
    """What a chat template puts around turns."""
    try:
        return str(tokenizer.apply_chat_template(list(TURNS), chat_template=jinja, tokenize=False))
    except TemplateError:
        return ""
