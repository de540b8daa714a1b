"""Columns of the data that travel with their prompts to the reward: flat arrays, in memory or mapped from files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field


def _differ(names: tuple[str, ...]) -> tuple[str, ...]:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{name!r} is there {count} times: name it once")
    return names


ColumnNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_differ)]


@dataclass(frozen=True)
class Columns:
    """N rows of JSON values end to end: two arrays that Ray shares without a copy, read row by row."""

    names: tuple[str, ...]  # K names
    content: np.ndarray  # [sum of sizes] uint8, each row a JSON list of K values
    offsets: np.ndarray  # [N + 1] int64, row i is content[offsets[i]:offsets[i + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> dict[str, Any]:
        """Values of one row by name, None where the data have none."""
        values = json.loads(self.content[self.offsets[index] : self.offsets[index + 1]].tobytes())
        return dict(zip(self.names, values, strict=True))

    @staticmethod
    def of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
        """From the values of each row."""
        encoded = [json.dumps(row).encode() for row in rows]
        return Columns(tuple(names), np.frombuffer(b"".join(encoded), np.uint8), _offsets(list(map(len, encoded))))

    @staticmethod
    def concat(parts: Sequence[Columns]) -> Columns:
        """Rows of the same columns, one part behind the other."""
        (names,) = {part.names for part in parts}
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return Columns(names, np.concatenate([part.content for part in parts]), _offsets(sizes))


class ColumnsWriter:
    """Writes rows to files as they come."""

    def __init__(self, folder: Path, name: str) -> None:
        self._content, self._sizes = (path.open("wb") for path in _paths(folder, name))

    def close(self) -> None:
        for file in (self._content, self._sizes):
            file.close()

    def append(self, rows: Sequence[str]) -> None:
        """Add rows, each the JSON text of a list of values."""
        encoded = [row.encode() for row in rows]
        self._content.write(b"".join(encoded))
        self._sizes.write(np.array([len(row) for row in encoded], dtype=np.int32).tobytes())


def map_columns(folder: Path, name: str, names: Sequence[str]) -> Columns:
    """What a ColumnsWriter wrote, mapped: pages come from the disk when they are used."""
    content, sizes = _paths(folder, name)
    mapped = np.asarray(np.memmap(content, np.uint8, "r")) if content.stat().st_size else np.zeros(0, np.uint8)
    return Columns(tuple(names), mapped, _offsets(np.fromfile(sizes, dtype=np.int32)))


def _offsets(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.columns.json", folder / f"{name}.columns.i32"
