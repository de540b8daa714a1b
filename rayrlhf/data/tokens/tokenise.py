"""Records as tokens, once and for all: prompts for PPO, sequences with their prompt's length for SFT and pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

from pydantic import PositiveInt

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Record
from rayrlhf.data.templates import Template
from rayrlhf.data.templates.base import encode_answers
from rayrlhf.data.templates.special_tokens import REASON, InText, SpecialTokens
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


def tokenize(
    records: Sequence[Record], template: Template, tokenizer: Any, limit: Limit, in_text: InText = "split"
) -> list[Tokenized]:
    """Each record as rows of tokens, or the reason why it is left out.

    An answer ends with the tokenizer's eos: both are trained, the prompt is not. The whole batch is encoded in two
    calls, each of which uses all cores. in_text: what becomes of special tokens in prompts and answers.
    """
    prompts = template.encode_batch([record.prompt for record in records], tokenizer, in_text)
    texts = [text for record in records for text in record.answers]
    answers = iter(encode_answers(texts, tokenizer, template.special_tokens(tokenizer), in_text))
    return [
        _rows(prompt, list(islice(answers, len(record.answers))), tokenizer.eos_token_id, limit)
        for record, prompt in zip(records, prompts, strict=True)
    ]


DONE: dict[InText, str] = {"split": "split", "allow": "taken as control tokens", "reject": "to be rejected"}


class SpelledRows:
    """Counts rows in which people wrote special tokens."""

    def __init__(self, special: SpecialTokens, in_text: InText) -> None:
        self._special, self._in_text = special, in_text
        self._rows: set[tuple[str, int]] = set()

    def add(self, record: Record) -> None:
        if self._special.find(record.texts):
            self._rows.add((record.origin.source, record.origin.place))

    @property
    def note(self) -> Counter[str]:
        """The number of rows, with what was done to them; empty without any."""
        return Counter({f"rows with {REASON}, {DONE[self._in_text]}": len(self._rows)} if self._rows else {})


def _rows(prompt: list[int] | Rejected, answers: Sequence[list[int] | Rejected], eos: int, limit: Limit) -> Tokenized:
    if isinstance(prompt, Rejected):
        return prompt
    ended = []
    for answer in answers:
        if isinstance(answer, Rejected):
            return answer
        ended.append([*answer, eos])
    return limit.rows_of(prompt, ended)
