"""All text of data files, whatever their schema, to train a tokenizer on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rayrlhf.data.files import BadRow, Decoding, open_chunks
from rayrlhf.data.ingest.account import DataError


def read_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Every string in the files' rows, in order. Raises DataError for a file without text."""
    for path in paths:
        has_text, first_bad = False, ""
        for chunk in open_chunks(path, Decoding()):
            for value, place in zip(chunk.values, chunk.places, strict=True):
                if isinstance(value, BadRow):
                    first_bad = first_bad or f": {chunk.unit} {place}: {value.reason}: {value.detail}"
                for text in _strings(value):
                    has_text = True
                    yield text
        if not has_text:
            raise DataError(f"{path}: the file holds no text{first_bad}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
