"""The account of a data set: what became of every row. Every row left out is counted here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rayrlhf.config import UserError
from rayrlhf.data.ingest.records import LabeledAnswer, Origin, Record
from rayrlhf.data.ingest.source_columns import SourceColumns


class DataError(UserError):
    """A data file cannot be used; the message names file, row and fix."""


class Rejected(Exception):
    """A row gives no record. Raised by formats, pairing rules and templates; caught where rows are counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


BAD_INPUT = frozenset(
    {
        "invalid UTF-8",
        "wrong code page",
        "half of a character",
        "truncated JSON",
        "invalid JSON",
        "malformed row",
        "another schema",
        "missing column",
        "wrong type",
        "choice out of range",
        "ranking out of range",
        "scores contradict the choice",
        "two system messages",
        "tool calls",
        "tools",
        "content that is not text",
        "part of a message that is not read",
        "empty prompt",
        "empty answer",
        "chosen equals rejected",
        "duplicate id",
        "refused by the template",
    }
)
"""Reasons why a row is bad, as opposed to left out by a rule. Only these count toward `max_reject_share`."""

MIN_ROWS_TO_JUDGE = 1000
"""Rows read before the share of bad ones can stop the reading early."""


class RejectedFile:
    """JSON lines of all rejected rows: reason, detail, source, line or row, and content."""

    def __init__(self, path: Path, written_at: Path | None = None) -> None:
        """path: its name in messages. written_at: where it lies until it is complete; `path` by default."""
        self.path = path
        self._written_at = written_at or path
        self._file: TextIO | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no row was rejected."""
        return self._file is None

    def write(self, origin: Origin, reason: str, detail: str, content: Any) -> None:
        """Raises DataError if the disk is full."""
        place = {"source": origin.source, origin.unit: origin.place}
        entry = {"reason": reason, "detail": detail, **place, "content": content}
        with self._explained():
            if self._file is None:
                self._written_at.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._written_at.open("w", encoding="utf-8", errors="backslashreplace")
            self._file.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """Raises DataError if the disk is full."""
        if self._file is not None:
            with self._explained():
                self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.path}: cannot write rejected rows: {error.strerror or error}") from None


@dataclass
class Account:
    """Rows in = rows kept + rows rejected, and the same for the records (pairs, turns) made from them.

    A row is kept if at least one of its records is. A row whose records are all rejected gets the last one's reason.
    """

    max_reject_share: float = 1.0
    """A larger share of bad rows raises DataError."""
    rejected_file: RejectedFile | None = None
    advance: Callable[[int], None] = lambda _: None
    """Called with the number of bytes just read, for progress bars."""
    rows: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""
    records: int = 0
    """Records made from the rows."""
    records_kept: int = 0
    records_rejected: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    """For each source: rows under "rows", records kept under "records"."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each reason, where it was first met, with its detail."""
    notes: Counter[str] = field(default_factory=Counter)
    """Repairs and other remarks that rejected nothing."""
    columns: dict[str, SourceColumns] = field(default_factory=dict)
    """For each source: its columns, and which of them nothing reads."""
    _undecided: dict[tuple[str, int], int] = field(default_factory=dict)
    """For rows of several records, none of which is kept yet: how many are undecided."""

    def __enter__(self) -> Account:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rejected_file is not None:
            self.rejected_file.close()

    def read(self, source: str, num_rows: int, num_bytes: int) -> None:
        """Count rows that were read. Raises DataError if too many of those read before are bad."""
        if self.rows >= MIN_ROWS_TO_JUDGE:
            self._judge()  # only now all of them have been looked at
        self.rows += num_rows
        self.by_source.setdefault(source, Counter())["rows"] += num_rows
        self.advance(num_bytes)

    def reject_row(self, origin: Origin, reason: str, detail: str = "", row: Any = None) -> None:
        """Count the row at `origin` as rejected: it gives no record."""
        self.rejected[reason] += 1
        self._remember(origin, reason, detail)
        if self.rejected_file is not None:
            self.rejected_file.write(origin, reason, detail, row)

    def keep_row(self) -> None:
        """Count a row as kept whose records are made from several rows."""
        self.kept += 1

    def made(self, records: Sequence[Record]) -> None:
        """Count `records`, made from one row or from several together."""
        self.records += len(records)
        origin = records[0].origin
        if origin.siblings > 1:
            self._undecided[origin.source, origin.place] = origin.siblings
        if origin.notes:
            self.notes.update(origin.notes)

    def keep(self, record: Record) -> None:
        """Count `record` as kept."""
        origin = record.origin
        self.records_kept += 1
        self.by_source[origin.source]["records"] += 1
        if origin.siblings == 1 or self._undecided.pop((origin.source, origin.place), 0):
            self.kept += 1

    def reject(self, record: Record, reason: str, detail: str = "") -> None:
        """Count `record` as left out."""
        origin = record.origin
        self.records_rejected[reason] += 1
        self._remember(origin, reason, detail)
        if self.rejected_file is not None:
            self.rejected_file.write(origin, reason, detail, describe(record))
        if origin.siblings == 1:
            self.rejected[reason] += 1
        elif left := self._undecided.get((origin.source, origin.place)):
            self._undecided[origin.source, origin.place] = left - 1
            if left == 1:
                del self._undecided[origin.source, origin.place]
                self.rejected[reason] += 1

    def _remember(self, origin: Origin, reason: str, detail: str) -> None:
        if reason not in self.examples:
            self.examples[reason] = f"{origin}: {reason}" + (f": {detail}" if detail else "")

    @property
    def num_rejected(self) -> int:
        return self.rejected.total()

    @property
    def undecided(self) -> int:
        """Rows that were read and neither kept nor rejected yet: 0 unless an error stopped the reading among them."""
        return self.rows - self.kept - self.num_rejected

    @property
    def bad_rows(self) -> int:
        """Rows rejected because they are bad, as opposed to left out by a rule."""
        return sum(count for reason, count in self.rejected.items() if family(reason) in BAD_INPUT)

    def finish(self) -> None:
        """Check the balance after all is read. Raises DataError if too many rows were bad or nothing is left."""
        assert not self._undecided, "every record is kept or rejected before the account is closed"
        assert self.rows == self.kept + self.num_rejected, f"rows in = kept + rejected: {self}"
        assert self.records == self.records_kept + self.records_rejected.total(), f"records balance: {self}"
        self._judge()
        if self.rows == 0:
            raise DataError(f"{', '.join(self.by_source) or 'the input'}: no rows")
        if self.records_kept == 0:
            first = next((f". The first: {example}" for example in self.examples.values()), "")
            raise DataError(f"{', '.join(self.by_source)}: no usable row is left: {self}{first}")

    def _judge(self) -> None:
        share = self.bad_rows / max(1, self.rows)
        if share > self.max_reject_share:
            where = f"; they are in {self.rejected_file.path}" if self.rejected_file is not None else ""
            worst = next(reason for reason, _ in self.rejected.most_common() if family(reason) in BAD_INPUT)
            raise DataError(
                f"{', '.join(self.by_source)}: {self.bad_rows} of {self.rows} rows are bad ({share:.1%}), more than "
                f"max_reject_share={self.max_reject_share:g} allows{where}: {self}. The first: {self.examples[worst]}"
            )

    def as_dict(self) -> dict[str, Any]:
        """For `summary.json` and lineage records."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "rejected": dict(self.rejected.most_common()),
            "records": self.records,
            "records_kept": self.records_kept,
            "records_rejected": dict(self.records_rejected.most_common()),
            "sources": {source: dict(counts) for source, counts in self.by_source.items()},
            "notes": dict(self.notes.most_common()),
            "columns": {source: columns.as_dict() for source, columns in self.columns.items()},
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Account:
        """The account that `as_dict` wrote."""
        account = Account(by_source={source: Counter(counts) for source, counts in content["sources"].items()})
        account.columns = {name: SourceColumns.from_dict(columns) for name, columns in content["columns"].items()}
        for name in ("rows", "kept", "records", "records_kept"):
            setattr(account, name, content[name])
        for name in ("rejected", "records_rejected", "notes"):
            getattr(account, name).update(content[name])
        return account

    @property
    def unread(self) -> list[str]:
        """For each source with columns that nothing reads, a line that names them."""
        return [
            f"{source}, read as {columns.format}: columns that nothing reads: {columns}"
            for source, columns in self.columns.items()
            if columns.unread
        ]

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.most_common())
        parts = [f"left out: {reasons}"] if reasons else []
        if self.undecided:
            parts.append(f"{self.undecided} not decided when the reading stopped")
        text = f"{self.kept} of {self.rows} rows" + (f" ({'; '.join(parts)})" if parts else "")
        return text if self.records_kept == self.kept else f"{self.records_kept} records from {text}"


def family(reason: str) -> str:
    """The reason without its specifics: `missing column` for `missing column: chosen`."""
    return reason.partition(":")[0]


def describe(record: Record) -> dict[str, Any]:
    """A record as plain values, for reports."""
    names = {1: ("answer",), 2: ("chosen", "rejected")}.get(len(record.answers), ())
    label = {"label": record.desirable} if isinstance(record, LabeledAnswer) else {}
    return {"prompt": record.prompt.text} | dict(zip(names, record.answers, strict=True)) | label
