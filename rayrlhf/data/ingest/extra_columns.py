"""Columns of a row: looked up by name, and those that no format reads kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rayrlhf.data.ingest.account import DataError, Rejected
from rayrlhf.data.ingest.excerpts import row_names, short
from rayrlhf.data.ingest.sources import Source


def look_up(raw: Mapping[str, Any], column: str) -> Any:
    """A column's value; `a.b` looks inside a nested one. Raises Rejected if the row has none."""
    found: Any = raw
    for part in [column] if column in raw else column.split("."):
        if not isinstance(found, dict) or part not in found:
            raise Rejected(f"missing column: {column}", f"the row has {row_names(raw)}")
        found = found[part]
    return found


class ExtraColumns:
    """Takes the named columns from rows of any format, None where a row has none."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._missing = set(names)
        self._example = ""

    def of(self, raw: Any, columns: Mapping[str, str]) -> str:
        """JSON list of the row's values. Raises Rejected for a value that JSON cannot hold.

        columns: those of the source, which may give a column another name.
        """
        values: list[Any] = []
        for name in self.names:
            try:
                value = look_up(raw, columns.get(name, name)) if isinstance(raw, dict) else None
                self._missing.discard(name)
            except Rejected:
                value = None
            values.append(value)
        if self._missing and not self._example:
            self._example = row_names(raw) if isinstance(raw, dict) else short(raw)
        try:
            return json.dumps(values, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise Rejected("wrong type: data.columns", f"JSON cannot hold its value: {error}") from None

    def shared(self, values: Sequence[str]) -> str:
        """JSON list of the values that rows have in common, with null for those in which they differ."""
        of_column = zip(*map(json.loads, values), strict=True)
        return json.dumps([same[0] if all(value == same[0] for value in same) else None for same in of_column])

    def check_found(self, sources: Sequence[Source]) -> None:
        """Raises DataError for a column that no row has."""
        for name in self.names:
            if name in self._missing:
                raise DataError(
                    f"data.columns: no row of {', '.join(source.label for source in sources)} has {name!r}; a row has "
                    f"{self._example}: correct the name, or leave it out"
                )
