"""Which format a row has: the same whatever the order of formats, rows and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind

RICHEST_FIRST: tuple[Kind, ...] = get_args(Kind)


def best_formats(value: Mapping[str, Any], formats: Iterable[type[Row]]) -> list[type[Row]]:
    """Of the formats that recognize a row, the one that gives the richest records from the most required columns.

    None if no format recognizes it, several if it fits them equally well.
    """
    found = [row_format for row_format in formats if row_format.recognizes(value)]
    best = max(map(_rank, found), default=None)
    return sorted((row_format for row_format in found if _rank(row_format) == best), key=lambda f: f.name)


def _rank(row_format: type[Row]) -> tuple[int, int]:
    """A pair says more than an answer, and an answer more than a prompt."""
    richest = min(map(RICHEST_FIRST.index, row_format.gives), default=len(RICHEST_FIRST))
    return -richest, len(row_format.required())
