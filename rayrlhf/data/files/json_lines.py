"""JSON lines. A chunk is decoded as a whole, in C; only a chunk with a bad line is read line by line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from rayrlhf.data.files.base import CHUNK_BYTES, BadRow, Chunk, Decoding

ByteArray: TypeAlias = NDArray[np.uint8]
IntArray: TypeAlias = NDArray[np.intp]
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
CUT_TOKEN = re.compile(r"\.|[eE][+-]?|\\?u[0-9a-fA-F]{0,3}")
"""The rest of a number or escape that was cut off, from the position of the decoder's error."""
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")


def json_lines_chunks(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """Chunks of a file of one JSON object per line, from the current position of `file`. Blank lines are skipped."""
    is_utf8 = decoding.encoding == "utf-8"
    line = 1
    while data := file.read(CHUNK_BYTES) + file.readline():
        breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))  # three times as fast as data.count
        num_lines = len(breaks) + (not data.endswith(b"\n"))
        values = _decode_whole(data, breaks[: num_lines - 1], num_lines) if is_utf8 else None
        if values is not None:
            yield Chunk(values, range(line, line + num_lines), len(data))
        else:
            pairs = [
                (place, _decode_line(text, path, place, decoding, is_utf8))
                for place, text in enumerate(data.split(b"\n"), start=line)
                if text.strip()
            ]
            yield Chunk([value for _, value in pairs], [place for place, _ in pairs], len(data))
        line += num_lines


def _decode_whole(data: bytes, breaks: IntArray, num_lines: int) -> list[Any] | None:
    """The values, if every line holds one object; else None."""
    # The decoder also accepts several values in a line and one over several lines. No value has a line break between
    # } and {. So if every break is between } and {, and there are as many values as lines, each line is one value.
    if len(breaks) and (breaks[0] < 2 or not _between_objects(np.frombuffer(data, np.uint8), breaks)):
        return None
    try:
        values = _DECODER.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return values if len(values) == num_lines else None


def _between_objects(data: ByteArray, breaks: IntArray) -> bool:
    before = np.where(data[breaks - 1] == ord("\r"), data[breaks - 2], data[breaks - 1])
    return bool((before == ord("}")).all() and (data[breaks + 1] == ord("{")).all())


def _decode_line(data: bytes, path: Path, place: int, decoding: Decoding, is_utf8: bool) -> Any:
    if is_utf8:
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # parse() explains the error, and accepts NaN, which this decoder rejects
    text = decoding.text(data, path, "line", place)
    return text if isinstance(text, BadRow) else parse(text)


def parse(text: str) -> Any:
    """One JSON value, or a BadRow with the error."""
    try:
        value = json.loads(text)
        return half_character(value) or value
    except json.JSONDecodeError as error:
        reason = "truncated JSON" if is_cut(error, text) else "invalid JSON"
        return BadRow(reason, f"{error.msg} at character {error.pos + 1}", text)
    except RecursionError:
        return BadRow("invalid JSON", "nested too deeply", text)
    except ValueError:  # Python's limit on the digits of an integer
        return BadRow("invalid JSON", "a number has too many digits", text)


def is_cut(error: json.JSONDecodeError, text: str) -> bool:
    """Whether `text` could be the beginning of valid JSON."""
    rest = text[error.pos :].rstrip()
    if error.msg.startswith("Unterminated string") or any(word.startswith(rest) for word in WORDS):
        return True
    return CUT_TOKEN.fullmatch(rest) is not None


def half_character(value: Any) -> BadRow | None:
    """A BadRow if a string holds a lone surrogate: JSON can escape one, but no tokenizer or file can encode it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        detail = f"{error.object[error.start]!r}: the text was cut inside one"
        return BadRow("half of a character", detail, json.dumps(value))
    return None
