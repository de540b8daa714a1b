"""Columns of a source: those that its format reads, and those that nothing reads, which might have mattered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayrlhf.data.formats.base import Row

ID_NAMES = ("id", "id3", "id2")
OWN = frozenset((*ID_NAMES, "lineage"))
"""Names that every format knows: a row's own id, and what `rayrlhf data` wrote about its origin."""
MAX_NAMES = 200
"""Names that are counted; rows of random ones must not fill the memory."""


NO_NAMES: frozenset[str] = frozenset()


@dataclass
class SourceColumns:
    """What became of a source's columns."""

    format: str
    read: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    """Rows that hold something in a column that nothing reads."""

    def as_dict(self) -> dict[str, Any]:
        return {"format": self.format, "read": self.read, "unread": dict(self.unread.most_common())}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> SourceColumns:
        return SourceColumns(content["format"], list(content["read"]), Counter(content["unread"]))

    def __str__(self) -> str:
        return ", ".join(
            f"{name or 'column without a name'} ({count:,} row{'s' * (count > 1)})"
            for name, count in self.unread.most_common()
        )


class ColumnWatch:
    """Counts the columns of rows as they are read."""

    def __init__(self, row_format: type[Row], columns: Mapping[str, str], kept: Iterable[str]) -> None:
        """columns: those of the source. kept: names that are kept as such."""
        self.found = SourceColumns(row_format.name)
        self._format = row_format
        self._mapped = {_outermost(column) for column in columns.values() if column}
        left_out = {name for name, column in columns.items() if not column}
        self._known = set(OWN) | left_out | {_outermost(columns.get(name) or name) for name in kept}
        self._seen: set[str] = set()
        self._unread: set[str] = set()

    def look(self, raw: Mapping[str, Any]) -> frozenset[str]:
        """Count a row's columns; returns those that nothing reads, empty ones too."""
        unread = raw.keys() - self._seen
        if not unread:
            return NO_NAMES
        if not unread <= self._unread:
            self._sort(raw)
            unread -= self._seen
        counts = self.found.unread
        for name in unread:
            value = raw[name]
            if value is not None and value != "" and value != [] and value != {}:
                if name in counts:
                    counts[name] += 1
                elif len(counts) < MAX_NAMES:
                    counts[name] = 1
        return frozenset(unread)

    def _sort(self, raw: Mapping[str, Any]) -> None:
        """Add names that are new to those that are read or to those that are not."""
        passed_over = self._format.passed_over(raw)
        for name in raw:
            if name in self._seen:
                continue
            if name in self._known:
                self._seen.add(name)
            elif name in self._mapped or (self._format.reads(name) and name not in passed_over):
                self._seen.add(name)
                self.found.read.append(name)
            elif len(self._unread) < MAX_NAMES:
                self._unread.add(name)


def _outermost(column: str) -> str:
    return column.partition(".")[0]
