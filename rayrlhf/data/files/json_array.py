"""A JSON array of objects, read in pieces, so that files may be larger than memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from rayrlhf.data.files.base import CHUNK_BYTES, BadRow, Chunk, Decoding
from rayrlhf.data.files.json_lines import half_character, is_cut
from rayrlhf.data.ingest.account import DataError

SPACE = re.compile(r"[ \t\r\n]*")
LONGEST_TOKEN = 16
"""Characters of the longest token besides strings and numbers; a shorter rest may only be cut off."""


def json_array_chunks(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """Chunks of the array's elements, numbered from 1.

    If the file ends inside the array, its last element is a BadRow (truncated). Raises DataError, naming the line, for
    any other syntax error: nothing after it can be read.
    """
    reader = _ArrayReader(file, path, decoding)
    row = 1
    while values := reader.next_values():
        yield Chunk(values, range(row, row + len(values)), reader.take_bytes_read(), unit="row")
        row += len(values)


class _ArrayReader:
    def __init__(self, file: IO[bytes], path: Path, decoding: Decoding) -> None:
        self._file, self._path, self._decoding = file, path, decoding
        self._decode = json.JSONDecoder().raw_decode
        errors = "replace" if decoding.invalid == "replace" else "surrogateescape"
        self._to_text = codecs.getincrementaldecoder(decoding.encoding)(errors)
        self._text, self._line, self._row, self._bytes = "", 1, 0, 0
        self._state = "start"  # start → element → separator → element … → end
        self._ended = False

    def take_bytes_read(self) -> int:
        taken, self._bytes = self._bytes, 0
        return taken

    def next_values(self) -> list[Any]:
        """The elements completed by the next piece of the file; [] at the end."""
        values: list[Any] = []
        while not values and not self._ended:
            # As much again as waits: an element over many pieces is tried a few times, not once for each piece.
            data = self._file.read(max(CHUNK_BYTES, len(self._text)))
            self._bytes += len(data)
            self._ended = not data
            self._text += self._to_text.decode(data, final=not data)
            position = self._take(values)
            self._line += self._text.count("\n", 0, position)
            self._text = self._text[position:]
        return values

    def _take(self, values: list[Any]) -> int:
        """Move complete elements of the text to `values`. Returns where the unread rest begins."""
        text, position = self._text, 0
        suspicious = "\\u" in text or not _encodes(text)
        while True:
            at = SPACE.match(text, position).end()  # type: ignore[union-attr]
            if at == len(text):
                if self._ended and self._state != "end":
                    self._truncated(values, text[position:])
                return position
            character = text[at]
            if self._state == "end":
                self._fail(text, at, "text after the end of the array")
            elif self._state == "start":
                assert character == "[", "only arrays come here"
                self._state, position = "element", at + 1
            elif character == "]":
                self._state, position = "end", at + 1
            elif self._state == "separator":
                if character != ",":
                    self._fail(text, at, "expected a comma between rows")
                self._state, position = "element", at + 1
            else:
                end = self._value(text, at, values, suspicious)
                if end is None:
                    return at
                self._state, position = "separator", end

    def _value(self, text: str, at: int, values: list[Any], suspicious: bool) -> int | None:
        """Move the element at `at` to `values`. Returns where it ends, or None if its end has not been read yet."""
        try:
            value, end = self._decode(text, at)
        except json.JSONDecodeError as error:
            if not self._ended:
                # It may continue in the next piece, unless the error is before the text's end.
                if error.pos >= len(text) - LONGEST_TOKEN or error.msg.startswith("Unterminated string"):
                    return None
            elif is_cut(error, text):
                self._truncated(values, text[at:])
                return None
            self._fail(text, error.pos, error.msg)
        except RecursionError:
            self._fail(text, at, "nested too deeply")
        except ValueError:
            self._fail(text, at, "a number has too many digits")
        if isinstance(value, int | float) and end > len(text) - LONGEST_TOKEN and not self._ended:
            return None  # the number may continue
        self._row += 1
        values.append(self._checked(value, text[at:end]) if suspicious else value)
        return end

    def _checked(self, value: Any, text: str) -> Any:
        """`value`, or what is wrong with its characters. Raises DataError for such bytes if `invalid` is strict."""
        if not _encodes(text):
            found = self._decoding.text(
                text.encode(self._decoding.encoding, "surrogateescape"), self._path, "row", self._row
            )
            if isinstance(found, BadRow):
                return found
        return half_character(value) or value

    def _truncated(self, values: list[Any], raw: str) -> None:
        values.append(BadRow("truncated JSON", "the file ends inside the array", raw))
        self._state = "end"

    def _fail(self, text: str, position: int, what: str) -> NoReturn:
        line = self._line + text.count("\n", 0, position)
        raise DataError(
            f"{self._path}, line {line}: not valid JSON: {what}; nothing after it in the array can be read; fix "
            "it, or write one object per line"
        )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
