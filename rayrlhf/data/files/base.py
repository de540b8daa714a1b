"""What every container gives: chunks of raw rows, bad ones among them in their place."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from rayrlhf.config import Config
from rayrlhf.data.ingest.account import DataError

ASCII = "".join(map(chr, range(32, 127))) + "\t\r\n"
CHUNK_BYTES = 1 << 19
"""Of text; more than a core's cache holds is slower."""
CHUNK_ROWS = 2048


class Decoding(Config):
    """How bytes become text."""

    encoding: str = "utf-8"
    invalid: Literal["strict", "replace", "reject"] = "reject"
    """Bytes that are not text: `strict` stops, `replace` puts U+FFFD, `reject` leaves the row out and counts it."""

    @field_validator("encoding")
    @classmethod
    def _can_be_taken_apart(cls, name: str) -> str:
        try:
            known = codecs.lookup(name).name
            if known in ("utf-8", "utf-8-sig"):  # a byte order mark is skipped in any case
                return "utf-8"
            as_ascii = ASCII.encode(name, errors="replace") == ASCII.encode()
        except LookupError:
            raise ValueError(f"{name!r} is no encoding of text that Python knows") from None
        except UnicodeError:
            as_ascii = False
        if not as_ascii:
            raise ValueError(f"{name!r} does not write line breaks and quotes as ASCII does: convert the file to UTF-8")
        return name

    def text(self, data: bytes, path: Path, unit: str, place: int) -> str | BadRow:
        """`data` as text, or what is wrong with it."""
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError as error:
            problem = f"byte {error.start} of the {unit} (0x{data[error.start]:02x}) is not {self.encoding}"
            if self.invalid == "strict":
                raise DataError(
                    f"{path}, {unit} {place}: {problem}; mend the file, name its encoding (decoding.encoding=cp949 for "
                    "old Korean files), or set decoding.invalid=replace or reject"
                ) from None
        if self.invalid == "replace":
            return data.decode(self.encoding, errors="replace")
        return BadRow("invalid UTF-8", problem, data.decode(self.encoding, errors="backslashreplace"))


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not even be taken apart."""

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
    """Read from the file for it."""
    unit: Literal["line", "row"] = "line"
