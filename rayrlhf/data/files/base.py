"""What every container reader yields: chunks of raw rows, with `BadRow` in place of unreadable ones."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.code_pages import korean_cp949

ASCII = "".join(map(chr, range(32, 127))) + "\t\r\n"
CHUNK_BYTES = 1 << 19
"""More than a core's cache holds is slower."""
CHUNK_ROWS = 2048
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
"""Encodings of several bytes a character, which are read as UTF-8."""


class Decoding(Config):
    """How bytes become text."""

    encoding: str = "utf-8"
    invalid: Literal["strict", "replace", "reject"] = "reject"
    """For undecodable bytes: `strict` stops, `replace` puts U+FFFD, `reject` leaves the row out and counts it."""

    @field_validator("encoding")
    @classmethod
    def _can_be_taken_apart(cls, name: str) -> str:
        try:
            known = codecs.lookup(name).name
            if known in ("utf-8", "utf-8-sig"):  # a byte order mark is skipped in any case
                return "utf-8"
            if known in WIDE:
                return known
            as_ascii = ASCII.encode(name, errors="replace") == ASCII.encode()
        except LookupError:
            raise ValueError(f"{name!r} is not a text encoding that Python knows") from None
        except UnicodeError:
            as_ascii = False
        if not as_ascii:
            raise ValueError(f"{name!r} encodes line breaks and quotes unlike ASCII: convert the file to UTF-8")
        return name

    def text(self, data: bytes, path: Path, unit: str, place: int) -> str | BadRow:
        """`data` as text, or a BadRow. Raises DataError if `invalid` is strict."""
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError as error:
            problem = f"byte {error.start} of the {unit} (0x{data[error.start]:02x}) is not {self.encoding}"
            if self.encoding == "utf-8" and (korean := korean_cp949(data)):
                problem += f"; as cp949 it reads {korean!r}: set decoding.encoding=cp949"
            if self.invalid == "strict":
                raise DataError(
                    f"{path}, {unit} {place}: {problem}; fix the file, name its encoding (decoding.encoding=cp949 for "
                    "old Korean files), or set decoding.invalid=replace or reject"
                ) from None
        if self.invalid == "replace":
            return data.decode(self.encoding, errors="replace")
        return BadRow("invalid UTF-8", problem, data.decode(self.encoding, errors="backslashreplace"))


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be parsed."""

    reason: str
    detail: str
    raw: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one source."""

    values: list[Any]
    """Mappings, or BadRow."""
    places: Sequence[int]
    """1-based line or row of each value."""
    num_bytes: int = 0
    """Bytes of the file that it was read from."""
    unit: Literal["line", "row"] = "line"
