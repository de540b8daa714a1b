"""Records as tokens, once and for all: prompts for PPO, sequences with their prompt's length for SFT and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import PositiveInt

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Record
from rayrlhf.data.templates import Template
from rayrlhf.data.templates.base import encode_texts
from rayrlhf.data.tokens.sequences import TokenRow

Tokenized = tuple[TokenRow, ...] | Rejected
"""A record as one row (a prompt, an answer) or two (chosen, rejected); or why it is left out."""


class PromptLimit(Config):
    """What to do with prompts that are too long."""

    max_prompt_tokens: PositiveInt = 256
    overlong_prompts: Literal["drop", "cut", "keep"] = "drop"
    """`drop` leaves them out, `cut` keeps their last tokens, `keep` lets them be; each is counted."""

    def rows_of(self, prompt: list[int], answers: Sequence[list[int]]) -> Tokenized:
        if len(prompt) > self.max_prompt_tokens and self.overlong_prompts != "keep":
            if self.overlong_prompts == "drop":
                return Rejected(
                    "prompt too long", f"{len(prompt)} tokens, max_prompt_tokens is {self.max_prompt_tokens}"
                )
            prompt = prompt[-self.max_prompt_tokens :]
        return ((prompt, answers[0] if answers else []),)


class SequenceLimit(Config):
    """What to do with prompts and answers that are too long together."""

    max_tokens: PositiveInt = 512
    """Prompt and answer together."""
    overlong: Literal["drop", "cut"] = "cut"
    """Rows over `max_tokens`: cut the answer (its eos goes with the rest), or drop the row; a pair is dropped whole.
    Rows without room for any answer are dropped."""

    def rows_of(self, prompt: list[int], answers: Sequence[list[int]]) -> Tokenized:
        room = self.max_tokens - len(prompt)
        if max(map(len, answers)) > room:
            if self.overlong == "drop" or room < 1:
                return Rejected("too long", f"with its prompt over max_tokens={self.max_tokens}")
            answers = [answer[:room] for answer in answers]
            if len(answers) == 2 and answers[0] == answers[1]:
                return Rejected("equal after the cut", f"the answers differ only beyond max_tokens={self.max_tokens}")
        return tuple((prompt, answer) for answer in answers)


Limit = PromptLimit | SequenceLimit


def tokenize(records: Sequence[Record], template: Template, tokenizer: Any, limit: Limit) -> list[Tokenized]:
    """Each record as rows of tokens, or the reason why it is left out.

    An answer ends with the tokenizer's eos: both are trained, the prompt is not. The whole batch is encoded in two
    calls, each of which uses all cores.
    """
    try:
        prompts: list[list[int] | Rejected] = [*template.encode_batch([r.prompt for r in records], tokenizer)]
    except Rejected:
        prompts = [_encoded_or_refused(record, template, tokenizer) for record in records]
    texts = [text for record in records for text in record.answers]
    encoded = iter(encode_texts(texts, tokenizer, add_special_tokens=False))
    eos = tokenizer.eos_token_id
    per_record = ([[*next(encoded), eos] for _ in record.answers] for record in records)
    return [
        prompt if isinstance(prompt, Rejected) else limit.rows_of(prompt, answers)
        for prompt, answers in zip(prompts, per_record, strict=True)
    ]


def _encoded_or_refused(record: Record, template: Template, tokenizer: Any) -> list[int] | Rejected:
    try:
        return template.encode(record.prompt, tokenizer)
    except Rejected as rejection:
        return rejection
