"""Names and values of rows, as short as a message has room for."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any


def row_names(row: Iterable[Any]) -> str:
    """The column names of a row or header, for a message."""
    names = [short(name) if len(name) > 60 else name or "(no name)" for name in map(str, row)]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def short(value: Any) -> str:
    """`value` for a message; reprlib looks only at the beginning of what may be huge or deep."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
