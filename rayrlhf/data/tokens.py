"""Records as tokens, once and for all: prompts for PPO, sequences with their prompt's length for SFT and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import PositiveInt

from rayrlhf.config import Config, UserError
from rayrlhf.data.account import DataError
from rayrlhf.data.records import Record
from rayrlhf.data.sequences import TokenRow
from rayrlhf.data.templates import Template
from rayrlhf.data.templates.base import encode_texts

Tokenized = tuple[TokenRow, ...] | str
"""A record as one row (a prompt, an answer) or two (chosen, rejected); or the reason why it is left out."""


class PromptLimit(Config):
    """What to do with prompts that are too long."""

    max_prompt_tokens: PositiveInt = 256
    overlong_prompts: Literal["drop", "cut", "keep"] = "drop"
    """`drop` leaves them out, `cut` keeps their last tokens, `keep` lets them be; each is counted."""

    def rows_of(self, prompt: list[int], answers: Sequence[list[int]]) -> Tokenized:
        if len(prompt) > self.max_prompt_tokens and self.overlong_prompts != "keep":
            if self.overlong_prompts == "drop":
                return "prompt too long"
            prompt = prompt[-self.max_prompt_tokens :]
        return ((prompt, []),)


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
                return "too long"
            answers = [answer[:room] for answer in answers]
            if len(answers) == 2 and answers[0] == answers[1]:
                return "equal after the cut"
        return tuple((prompt, answer) for answer in answers)


Limit = PromptLimit | SequenceLimit


def tokenize(records: Sequence[Record], template: Template, tokenizer: Any, limit: Limit) -> list[Tokenized]:
    """Each record as rows of tokens, or the reason why it is left out.

    An answer ends with the tokenizer's eos: both are trained, the prompt is not. The whole batch is encoded in two
    calls, each of which uses all cores.
    """
    try:
        prompts = template.encode_batch([record.prompt for record in records], tokenizer)
    except UserError as error:
        raise DataError(f"{_first_refused(records, template, tokenizer)}: {error}") from None
    texts = [text for record in records for text in record.answers]
    encoded = iter(encode_texts(texts, tokenizer, add_special_tokens=False))
    eos = tokenizer.eos_token_id
    return [
        limit.rows_of(prompt, [[*next(encoded), eos] for _ in record.answers])
        for record, prompt in zip(records, prompts, strict=True)
    ]


def _first_refused(records: Sequence[Record], template: Template, tokenizer: Any) -> str:
    for record in records:
        try:
            template.as_text(record.prompt, tokenizer)
        except UserError:
            return str(record.origin)
    raise AssertionError("the template refused one of them")
