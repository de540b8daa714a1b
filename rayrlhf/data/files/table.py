"""Tables: CSV (or tab-separated) with a header, and Parquet."""

from __future__ import annotations

import csv
import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import field_validator

from rayrlhf.config import Config
from rayrlhf.data.files.base import CHUNK_ROWS, BadRow, Chunk, Decoding
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.excerpts import row_names, short

LONGEST_CELL = 1 << 24
"""Characters. Otherwise an unclosed quote would read the rest of a large file into memory."""
DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|", "space": " "}


class Table(Config):
    """How a CSV file is laid out. What is set here makes a file a table, whatever it looks like."""

    delimiter: str | None = None
    """One character, or `tab`, `semicolon`, `comma`, `pipe`, `space`. By default the header's most frequent one of
    comma, tab and semicolon."""
    header: bool | list[str] = True
    """False: there is no header, and the columns are named 1, 2, …. A list: there is none, and these are the names."""

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, given: str | None) -> str | None:
        character = None if given is None else DELIMITERS.get(given, given)
        if character is not None and (len(character) != 1 or character in '"\r\n'):
            raise ValueError(f"write one character, or one of {', '.join(DELIMITERS)}")
        return character

    @field_validator("header")
    @classmethod
    def _names_differ(cls, header: bool | list[str]) -> bool | list[str]:
        if isinstance(header, list) and (not header or len(set(header)) < len(header)):
            raise ValueError("give each column one name, and every column another")
        return header

    @property
    def is_set(self) -> bool:
        """Whether anything was said about the layout."""
        return self != NO_TABLE


NO_TABLE = Table()


def csv_chunks(
    file: IO[bytes], path: Path, decoding: Decoding, delimiter: str, header: bool | list[str] = True
) -> Iterator[Chunk]:
    """Rows as mappings from the header's names to text. Cells may hold line breaks; a row's place is its first line.

    header: as in `Table`. Raises DataError for a header that cannot be used, and if there is no row.
    """
    csv.field_size_limit(LONGEST_CELL)
    lines = _Lines(file, path, decoding)
    rows = _csv_rows(lines, delimiter)
    place, first = next(rows, (1, []))
    if isinstance(first, BadRow):
        what = "the header" if header is True else "the first row"
        raise DataError(f"{path}, line {place}: {what} cannot be read: {first.detail}")
    if header is True:
        names = first
        _check_names(names, f"{path}, line {place}: the header")
    else:
        names = header or [str(number) for number in range(1, len(first) + 1)]
        rows = itertools.chain([(place, first)], rows)
    has_rows = False
    while batch := list(itertools.islice(rows, CHUNK_ROWS)):
        has_rows = True
        values = [_named(cells, names) for _, cells in batch]
        yield Chunk(values, [place for place, _ in batch], lines.take_bytes_read())
    if not has_rows:
        raise DataError(f"{path}: a header ({row_names(names)}) and no rows")


def _check_names(names: list[str], where: str) -> None:
    repeated = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if repeated is not None:
        raise DataError(f"{where} names {short(repeated)} twice")


def _named(cells: list[str] | BadRow, header: list[str]) -> dict[str, str] | BadRow:
    if isinstance(cells, BadRow):
        return cells
    if len(cells) != len(header):
        return BadRow("malformed row", f"{len(cells)} cells under a header of {len(header)}", ",".join(cells))
    return dict(zip(header, cells, strict=True))


def _csv_rows(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line where it begins, cells) of every row that is not blank, the header first.

    If a row's quotes do not match, only its first line is lost: reading continues with the next line.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.row.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = "a quoted cell that begins here is never closed" if "unexpected end" in str(error) else str(error)
            place, text, problem = lines.back_to_second()
            detail = f"{what}; double the quotes inside a quoted cell"
            yield place, problem or BadRow("malformed row", detail, text.rstrip("\r\n"))
            continue
        problem = next((problem for _, _, problem in lines.row if problem), None)
        if problem:
            yield lines.row[0][0], problem
        elif len(cells) > 1 or (cells and cells[0].strip()):
            yield lines.row[0][0], cells


class _Lines:
    """Decoded lines for the CSV reader, which itself can neither skip a bad line nor go back to an earlier one."""

    def __init__(self, file: IO[bytes], path: Path, decoding: Decoding) -> None:
        self._file, self._path, self._decoding = file, path, decoding
        self._number, self._bytes = 0, 0
        self._again: deque[tuple[int, str, BadRow | None]] = deque()
        self.row: list[tuple[int, str, BadRow | None]] = []
        """(number, text, what is wrong with it) of each line read since this was cleared."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if line is None:
            raise StopIteration
        self.row.append(line)
        return line[1]

    def _read(self) -> tuple[int, str, BadRow | None] | None:
        data = self._file.readline()
        if not data:
            return None
        self._number += 1
        self._bytes += len(data)
        text = self._decoding.text(data, self._path, "line", self._number)
        if isinstance(text, str):
            return self._number, text, None
        problem = BadRow(text.reason, f"line {self._number}: {text.detail}", text.raw.rstrip("\r\n"))
        return self._number, text.raw, problem

    def back_to_second(self) -> tuple[int, str, BadRow | None]:
        """Continue reading at the second line of `row`. Returns the first."""
        self._again.extendleft(reversed(self.row[1:]))
        return self.row[0]

    def take_bytes_read(self) -> int:
        taken, self._bytes = self._bytes, 0
        return taken


def parquet_chunks(content: Path, path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """Rows of the Parquet file at `content`, named `path`, numbered from 1, a batch at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(content)
        _check_names(file.schema_arrow.names, f"{path}: the schema")
        per_row = content.stat().st_size / max(1, file.metadata.num_rows)
        yield from _batches(file.iter_batches(batch_size=CHUNK_ROWS), per_row, path, decoding)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from None


def _batches(batches: Iterable[Any], bytes_per_row: float, path: Path, decoding: Decoding) -> Iterator[Chunk]:
    import pyarrow

    row = 1
    for batch in batches:
        places = range(row, row + batch.num_rows)
        try:
            values = batch.to_pylist()
        except (ValueError, OverflowError, pyarrow.ArrowException):  # of text that is not UTF-8, too
            values = [_decoded(batch.slice(place - row, 1), place, path, decoding) for place in places]
        yield Chunk(values, places, int(len(values) * bytes_per_row), unit="row")
        row += len(values)


def _decoded(batch: Any, place: int, path: Path, decoding: Decoding) -> Any:
    """The single row of `batch`, which may hold text that is not UTF-8, and times that Python has no value for."""
    import pyarrow

    row: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            (row[name],) = column.to_pylist()
        except UnicodeDecodeError as error:
            is_text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
            # Bytes inside lists and mappings cannot be replaced one by one: leave such a row out.
            invalid = "reject" if decoding.invalid == "replace" and not is_text else decoding.invalid
            text = Decoding(invalid=invalid).text(error.object, path, "row", place)
            if isinstance(text, BadRow):
                return BadRow(text.reason, f"{name}: {text.detail}", text.raw)
            row[name] = text
        except (ValueError, OverflowError, pyarrow.ArrowException) as error:
            return BadRow("malformed row", f"{name}: its {column.type} cannot be read: {error}", "")
    return row
