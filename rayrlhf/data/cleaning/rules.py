"""Cleaning rules: which records are left out, each with a reason. Of duplicates the first one stays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from rayrlhf.config import Config
from rayrlhf.data.cleaning.languages import language_of
from rayrlhf.data.cleaning.near_duplicates import NearDuplicates
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.code_pages import wrong_code_page
from rayrlhf.data.ingest.records import Answer, LabeledAnswer, Origin, Preference, Record, visible


class Cleaning(Config):
    """Rules of a data set. Records with an empty prompt or an invisible answer and pairs of equal answers are always
    left out; repeated records are by default."""

    end_markers: tuple[Annotated[str, Field(min_length=1)], ...] = ("<|endoftext|>",)
    """Suffixes removed from the end of answers, as often as they occur."""
    code_pages: bool = True
    """Leave out records whose text was decoded with the wrong code page."""
    min_prompt_chars: NonNegativeInt = 0
    """Leave out records with fewer characters, not counting white space."""
    max_prompt_chars: PositiveInt | None = None
    min_answer_chars: NonNegativeInt = 0
    max_answer_chars: PositiveInt | None = None
    languages: tuple[str, ...] | None = None
    """ISO 639-1 codes of the languages to keep; null keeps all."""
    keep_duplicate_ids: bool = False
    """Keep rows whose id an earlier row of the same source had."""
    keep_duplicates: bool = False
    """Keep records whose prompt and answers an earlier record had."""
    near_duplicates: NearDuplicates | None = None
    """Leave out near duplicates of earlier rows. The pairs or turns of one row are kept or left out together."""
    max_reject_share: float = Field(default=0.1, ge=0, le=1)
    """Stop with an error if more than this share of rows is bad (broken, empty, equal answers, another schema)."""

    def clean(self, records: Iterable[Record], account: Account) -> Iterator[Record]:
        """The records that stay, in order; the others are counted in `account`."""
        checked = self._one_by_one(records, account)
        return checked if self.near_duplicates is None else self._far_apart(self.near_duplicates, checked, account)

    def _one_by_one(self, records: Iterable[Record], account: Account) -> Iterator[Record]:
        ids = _Seen()
        contents = _Seen()
        for record in records:
            record = self._without_end_markers(record)
            reason, detail = self._problem(record)
            if not reason and not self.keep_duplicate_ids and record.origin.id is not None and record.origin.siblings:
                first = ids.earlier(f"{record.origin.source}\x1f{record.origin.id}", record.origin)
                if first and first != str(record.origin):
                    reason, detail = "duplicate id", f"{record.origin.id!r} is the id of {first} too"
            if not reason and not self.keep_duplicates:
                label = (str(record.desirable),) if isinstance(record, LabeledAnswer) else ()  # people may disagree
                first = contents.earlier("\x1d".join((record.prompt.key, *record.answers, *label)), record.origin)
                if first:
                    reason, detail = "exact duplicate", f"of {first}, which stays"
            if reason:
                account.reject(record, reason, detail)
            else:
                yield record

    def _far_apart(self, rule: NearDuplicates, records: Iterable[Record], account: Account) -> Iterator[Record]:
        # Pairs of one ranking share their prompt, and turns of one chat its beginning: compare rows, not records.
        rows = (list(group) for _, group in itertools.groupby(records, key=_row_of))
        ours, theirs = itertools.tee(rows)
        places = _Places()
        for row, like in zip(ours, rule.find(_text_of(row, rule.of) for row in theirs), strict=True):
            places.add(row[0].origin)
            for record in row:
                if like is None:
                    yield record
                else:
                    account.reject(record, "near duplicate", f"of {places[like]}, which stays")

    def _without_end_markers(self, record: Record) -> Record:
        if not record.answers or not any(text.endswith(self.end_markers) for text in record.answers):
            return record
        texts = tuple(self._without_end_marker(text) for text in record.answers)
        if isinstance(record, Preference):
            return replace(record, chosen=texts[0], rejected=texts[1])
        assert isinstance(record, Answer | LabeledAnswer)
        return replace(record, text=texts[0])

    def _without_end_marker(self, text: str) -> str:
        while text.endswith(self.end_markers):
            text = next(text.removesuffix(mark) for mark in self.end_markers if text.endswith(mark))
        return text

    def _problem(self, record: Record) -> tuple[str, str]:
        """(reason, detail) of the first rule that the record breaks on its own, or two empty texts."""
        prompt, answers = record.prompt, record.answers
        if prompt.is_empty:
            return "empty prompt", ""
        for answer in answers:
            if not visible(answer):
                return "empty answer", "it has no visible character" if answer else ""
        if len(answers) == 2 and answers[0] == answers[1]:
            return "chosen equals rejected", ""
        text = prompt.text
        if self.code_pages:
            for part in (text, *answers):
                if damage := wrong_code_page(part):
                    return "wrong code page", damage
        if self.min_prompt_chars and (count := _ink(text)) < self.min_prompt_chars:
            return "prompt too short", f"{count} characters, min_prompt_chars is {self.min_prompt_chars}"
        if self.max_prompt_chars and len(text) > self.max_prompt_chars:
            return "prompt too long", f"{len(text)} characters, max_prompt_chars is {self.max_prompt_chars}"
        for answer in answers:
            if self.min_answer_chars and (count := _ink(answer)) < self.min_answer_chars:
                return "answer too short", f"{count} characters, min_answer_chars is {self.min_answer_chars}"
            if self.max_answer_chars and len(answer) > self.max_answer_chars:
                return "answer too long", f"{len(answer)} characters, max_answer_chars is {self.max_answer_chars}"
        if self.languages and (found := language_of("\n".join((text, *answers)))) not in self.languages:
            return "language", f"{found}, languages are {', '.join(self.languages)}"
        return "", ""


def _row_of(record: Record) -> tuple[str, int | str]:
    """Equal for records made from the same row, or from the same several rows."""
    origin = record.origin
    return origin.source, origin.place if origin.siblings else record.prompt.key


def _text_of(row: Sequence[Record], of: Literal["prompt", "all"]) -> str:
    """The text by which a row is compared."""
    prompt = row[-1].prompt.text  # of a chat's turns, the one that holds the others
    answers = dict.fromkeys(answer for record in row for answer in record.answers)
    return prompt if of == "prompt" else "\n".join((prompt, *answers))


def _ink(text: str) -> int:
    """Number of characters that are not white space."""
    return len("".join(text.split()))


class _Places:
    """Origins of millions of records in 8 bytes each, and a list of their sources."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], int] = {}
        self._places: list[int] = []

    def add(self, origin: Origin) -> None:
        self._places.append(self.pack(origin))

    def __getitem__(self, index: int) -> str:
        return self.unpack(self._places[index])

    def pack(self, origin: Origin) -> int:
        source = self._sources.setdefault((origin.source, origin.unit), len(self._sources))
        return source << 40 | origin.place

    def unpack(self, packed: int) -> str:
        source, unit = list(self._sources)[packed >> 40]
        return f"{source}, {unit} {packed & (1 << 40) - 1}"


class _Seen:
    """Contents seen so far, by 128-bit hash, and where each was seen first."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._places = _Places()

    def earlier(self, content: str, origin: Origin) -> str | None:
        """Where `content` was seen first, or None if this is the first time."""
        digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
        first = self._first.get(digest)
        if first is not None:
            return self._places.unpack(first)
        self._first[digest] = self._places.pack(origin)
        return None
