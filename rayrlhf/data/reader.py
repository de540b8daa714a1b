"""Read data files: JSON arrays or JSON lines, told apart by content; the schema is recognised from the first row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rayrlhf.config import UserError
from rayrlhf.data.formats import FORMATS, Row
from rayrlhf.data.records import Answer, Preference, PromptText, visible


class DataError(UserError):
    """A data file cannot be used; the message names file, row and mend."""


@dataclass
class Tally:
    """Rows read and rows left out, by reason. Nothing is left out without being counted here."""

    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @property
    def kept(self) -> int:
        return self.rows - sum(self.dropped.values())

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{self.kept} of {self.rows} rows" + (f" (left out: {reasons})" if reasons else "")


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of one file. Raises DataError naming file and row for anything that does not fit."""
    path = Path(path)
    found: type[Row] | None = None
    for place, value in _json_values(path):
        if found is None:
            found = _recognise(path, place, value)
        _check_characters(path, place, value)
        try:
            yield found.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "the row"
            raise DataError(
                f"{path}, {place}: {key}: {problem['msg']} (found {_short(problem['input'])}); "
                f"the file was read as {found.name!r} because of its first row"
            ) from None
    if found is None:
        raise DataError(f"{path}: the file is empty")


def _json_values(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
        yield from ((f"row {index}", value) for index, value in enumerate(values, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not valid JSON: {error.msg}") from None


def _check_characters(path: Path, place: str, value: Any) -> None:
    """JSON can escape half of a character, which no tokenizer and no file takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = repr(error.object[error.start])
        raise DataError(f"{path}, {place}: {half} is half of a character; the text was cut inside one") from None


def _recognise(path: Path, place: str, value: Any) -> type[Row]:
    if not isinstance(value, dict):
        raise DataError(f"{path}, {place}: expected an object with named fields, found {_short(value)}")
    for row_format in FORMATS:
        if row_format.required() <= value.keys():
            return row_format
    known = "; ".join(f"{f.name}: {', '.join(sorted(f.required()))}" for f in FORMATS)
    raise DataError(
        f"{path}, {place}: no known schema has the fields {', '.join(map(str, value))}; known schemas: {known}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


RecordT = TypeVar("RecordT", Answer, Preference, PromptText)


def read_answers(paths: Sequence[str], tally: Tally) -> list[Answer]:
    """All rows with an answer to imitate, empty ones left out and counted."""

    def reason(record: Answer) -> str | None:
        if record.prompt.is_empty:
            return "empty prompt"
        return None if visible(record.text) else "empty answer"

    return _read(paths, tally, lambda row: row.answer(), reason, "an answer to learn (completion, output, chosen)")


def read_preferences(paths: Sequence[str], tally: Tally) -> list[Preference]:
    """All pairs, without those that have an empty side or two equal sides."""

    def reason(record: Preference) -> str | None:
        if record.prompt.is_empty:
            return "empty prompt"
        if not visible(record.chosen) or not visible(record.rejected):
            return "empty answer"
        return "chosen equals rejected" if record.chosen == record.rejected else None

    return _read(paths, tally, lambda row: row.preference(), reason, "a chosen and a rejected answer")


def read_prompts(paths: Sequence[str], tally: Tally) -> list[PromptText]:
    """All prompts, each once; empty and repeated ones are left out and counted."""
    seen: set[str] = set()

    def reason(record: PromptText) -> str | None:
        if record.is_empty:
            return "empty prompt"
        if record.key in seen:
            return "repeated prompt"
        seen.add(record.key)
        return None

    return _read(paths, tally, lambda row: row.prompt_text(), reason, "a prompt")


def _read(
    paths: Iterable[str],
    tally: Tally,
    record_of: Callable[[Row], RecordT | None],
    reason_to_drop: Callable[[RecordT], str | None],
    needed: str,
) -> list[RecordT]:
    records: list[RecordT] = []
    for path in paths:
        for row in read_rows(path):
            record = record_of(row)
            if record is None:
                raise DataError(f"{path}: {type(row).name!r} rows have not {needed}")
            tally.rows += 1
            if reason := reason_to_drop(record):
                tally.drop(reason)
            else:
                records.append(record)
    if not records:
        raise DataError(f"{', '.join(paths)}: no usable row is left: {tally}")
    return records
